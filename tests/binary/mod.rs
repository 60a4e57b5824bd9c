//! The real binary, as operators run it.
#![expect(dead_code, reason = "each test binary uses a part of it")]

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration file.
pub struct Installation {
    pub folder: TempDir,
}

/// What a command printed, and its exit code.
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Installation {
    /// Settings on free ports, with more lines.
    pub fn new(more: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = format!(
            "listen = \"127.0.0.1:0\"\ndata_dir = \"data\"\nadmin.listen = \"127.0.0.1:0\"\n\
             log.format = \"json\"\n{more}"
        );
        std::fs::write(folder.path().join("gateway.toml"), settings).unwrap();
        Self { folder }
    }

    /// Writes a file of the folder.
    pub fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sivi-gateway"));
        command
            .args(arguments)
            .arg("--config")
            .arg(self.path("gateway.toml"))
            .current_dir(self.folder.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::from(self.command(arguments).output().unwrap())
    }

    /// Runs a command that must answer yes; gives its output.
    pub fn yes(&self, arguments: &[&str]) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, 0, "{arguments:?}: {}{}", ran.out, ran.err);
        ran.out
    }

    /// Starts the daemon and waits until it listens.
    pub fn serve(&self) -> Daemon {
        self.serve_dying("")
    }

    /// The same, of a daemon that is killed at a place in the store, `place:n`.
    pub fn serve_dying(&self, at: &str) -> Daemon {
        let mut command = self.command(&["serve"]);
        command.env("SIVI_DIE_AT", at);
        Daemon::start(command)
    }

    /// The same, of a daemon whose disk can be made full: see
    /// [`Daemon::let_files_grow`].
    pub fn serve_bounded(&self) -> Daemon {
        // The system ends a process whose file grows too large, unless it was
        // told not to; then writing fails, as it does on a full disk.
        let serve = self.command(&["serve"]);
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' XFSZ; exec \"$0\" \"$@\""])
            .arg(serve.get_program())
            .args(serve.get_args())
            .current_dir(self.folder.path());
        Daemon::start(command)
    }

    /// An HTTP client that trusts the daemon.
    pub fn client(&self) -> reqwest::Client {
        let pem = std::fs::read(self.path("data/self-signed.crt")).unwrap();
        reqwest::Client::builder()
            .tls_certs_only([reqwest::Certificate::from_pem(&pem).unwrap()])
            .timeout(std::time::Duration::from_secs(20))
            .build()
            .unwrap()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// A running daemon; killed when dropped.
pub struct Daemon {
    child: Child,
    pub url: String,
    pub admin: String,
    said: Arc<Mutex<Vec<String>>>,
    log: Option<std::thread::JoinHandle<()>>,
}

impl Daemon {
    /// Runs a command that serves, and waits until it listens.
    #[expect(clippy::zombie_processes, reason = "a daemon waits when it is dropped")]
    pub fn start(mut command: Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        loop {
            line.clear();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended");
            let event: Value = serde_json::from_str(&line).unwrap();
            let fields = &event["fields"];
            if let (Some(address), Some(admin)) =
                (fields["address"].as_str(), fields["admin"].as_str())
            {
                let url = address.replace("127.0.0.1", "https://localhost");
                let admin = format!("http://{admin}");
                // Goes on reading, so that the daemon never waits for us.
                let said: Arc<Mutex<Vec<String>>> = Arc::default();
                let log = std::thread::spawn({
                    let said = Arc::clone(&said);
                    move || {
                        for line in log.lines().map_while(Result::ok) {
                            said.lock().unwrap().push(line);
                        }
                    }
                });
                return Self {
                    child,
                    url,
                    admin,
                    said,
                    log: Some(log),
                };
            }
        }
    }

    /// How large its files may grow; `None` lets them. It has to be one of
    /// [`Installation::serve_bounded`].
    pub fn let_files_grow(&self, bytes: Option<u64>) {
        let id = Pid::from_raw(i32::try_from(self.id()).unwrap());
        let most = getrlimit(Resource::Fsize).maximum;
        let limit = Rlimit {
            current: bytes.or(most),
            maximum: most,
        };
        prlimit(id, Resource::Fsize, limit).unwrap();
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Waits until it died by itself; false when it did not in time.
    pub fn died(&mut self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        while Instant::now() < until {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        false
    }

    /// Waits until so many lines of the log hold a text; gives them.
    pub fn says(&self, text: &str, times: usize) -> Vec<String> {
        let until = Instant::now() + Duration::from_mins(1);
        loop {
            let mut said = self.said.lock().unwrap().clone();
            said.retain(|line| line.contains(text));
            if said.len() >= times {
                return said;
            }
            assert!(Instant::now() < until, "never {times} times {text}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM; gives the exit code and the log since it listened.
    pub fn stop(mut self) -> (i32, Vec<String>) {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        self.log.take().unwrap().join().unwrap();
        (code, std::mem::take(&mut *self.said.lock().unwrap()))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file of the repository.
pub fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// A PostgreSQL server of a test's own, which it may stop and start.
pub struct Server {
    folder: TempDir,
    url: String,
}

impl Server {
    /// Makes and starts it on a free port.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = Self::script(&["start", folder.path().to_str().unwrap()]);
        Self { folder, url }
    }

    /// The address of a database of it, which is made.
    pub async fn database(&self) -> String {
        new_database(&self.url).await
    }

    /// Stops it as a power cut would.
    pub fn cut(&self) {
        Self::script(&["stop", self.folder.path().to_str().unwrap(), "immediate"]);
    }

    /// Starts it again on the same port.
    pub fn restart(&self) {
        let url = Self::script(&["start", self.folder.path().to_str().unwrap()]);
        assert_eq!(url, self.url);
    }

    fn script(arguments: &[&str]) -> String {
        let script = sample(".ci/postgres");
        let ran = Ran::from(Command::new(script).args(arguments).output().unwrap());
        assert_eq!(ran.code, 0, "{arguments:?}: {}", ran.err);
        ran.out.trim().to_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let folder = self.folder.path().to_str().unwrap();
        let script = sample(".ci/postgres");
        let _ = Command::new(script)
            .args(["stop", folder, "immediate"])
            .output();
    }
}

/// The address of a new database of the server that `.ci/test` starts.
pub async fn test_database() -> String {
    let server = std::env::var("SIVI_TEST_POSTGRES").expect(
        "these tests need PostgreSQL: run .ci/test, or start a server with \
         `.ci/postgres start FOLDER` and set SIVI_TEST_POSTGRES to what it prints",
    );
    new_database(&server).await
}

async fn new_database(server: &str) -> String {
    use sqlx::{AssertSqlSafe, Connection as _};

    let name = format!("sivi_{}", sivi_gateway::clock::new_id());
    let mut link = sqlx::PgConnection::connect(&format!("{server}/postgres"))
        .await
        .unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut link)
        .await
        .unwrap();
    format!("{server}/{name}")
}
