//! The settings of the daemon, checked when they are loaded.
//!
//! A [`Settings`] is complete and within bounds: nobody after this module
//! asks whether a key was set. Only this module reads the environment.
//! It does not open sockets, databases or certificates, and does not know
//! parties or tenants: those stand in the directory.

use std::collections::HashMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use serde::Deserialize;

pub use limits::Limits;
pub use log::{Log, LogFormat, LogLevel};
pub use settings_file::SettingsFile;
pub use watching::{Alerts, Trace};

use crate::toml_file::{Fault, TomlFile};
use watching::{WrittenAlerts, WrittenTrace};

/// The file that is read when no other is named.
pub const DEFAULT_PATH: &str = "config/gateway.toml";

/// The settings of one installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where parties connect, TLS only. Default `127.0.0.1:8443`.
    pub listen: SocketAddr,
    /// The folder for the database, the data key and spooled bodies.
    /// Default `data`.
    pub data_dir: PathBuf,
    /// The names that the gateway has in messages.
    pub gateway: Gateway,
    /// Certificate of the party side.
    pub tls: Tls,
    /// The database. Default `gateway.db` in the data folder.
    pub database: Database,
    /// The side for operators.
    pub admin: Admin,
    /// Folders and files that add to what is built in.
    pub paths: Paths,
    /// Bounds on what one party or one request can cost.
    pub limits: Limits,
    /// Numbers of the privacy policy.
    pub policy: Policy,
    /// The master key. Default `data.key` in the data folder.
    pub data_key: Source,
    /// The master key before it, while the ring is wrapped anew. Default none.
    pub previous_key: Option<Source>,
    /// The database of the key ring. Default `ring.db` in the data folder.
    pub ring: Database,
    /// What is logged and how.
    pub log: Log,
    /// When and where operators are told.
    pub alerts: Alerts,
    /// Where traces go; nowhere by default.
    pub trace: Trace,
    /// The folder of the file, from which relative paths start.
    folder: PathBuf,
}

/// The names that the gateway has in messages, each 1 to 40 characters.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// `IdInzndr` of what the gateway sends. Default `SIVI-GATEWAY`.
    #[serde(default = "default_name")]
    pub sender_id: String,
    /// `IdOntvngr` by which a sender means "whoever the routes name". Default
    /// `SIVI-GATEWAY`.
    #[serde(default = "default_name")]
    pub receiver_id: String,
}

/// The certificate of the party side. Without `cert` and `key` the daemon
/// makes a self-signed one in the data folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tls {
    /// Certificate chain, PEM. Set together with `key`.
    pub cert: Option<Source>,
    /// Private key, PEM.
    pub key: Option<Source>,
    /// Certificate authorities for client certificates, PEM.
    pub client_ca: Option<Source>,
}

/// Which database holds the messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// `sqlite:PATH`: one file, one node.
    Sqlite(PathBuf),
    /// `postgres://…`: a server, several nodes. The address may hold a password.
    Postgres(Secret),
}

/// The side for operators.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// Where metrics are served, without TLS: keep it on loopback. Default
    /// `127.0.0.1:9464`.
    #[serde(default = "default_admin_listen")]
    pub listen: SocketAddr,
}

/// Folders and files that add to or replace what is built in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    /// Folder of XSD files per edition.
    pub schemas: Option<PathBuf>,
    /// Folder of mappings.
    pub mappings: Option<PathBuf>,
    /// The policy table.
    pub policy: Option<PathBuf>,
}

/// Numbers of the privacy policy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Days after a recovery in which the person still counts as recovered:
    /// 28 for chaining of absences and a margin. 28 to 366, default 35.
    #[serde(default = "default_window_days")]
    pub window_days: i32,
}

fn default_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8443)
}
fn default_admin_listen() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9464)
}
fn default_data_dir() -> PathBuf {
    PathBuf::from("data")
}
fn default_name() -> String {
    "SIVI-GATEWAY".to_owned()
}
fn default_window_days() -> i32 {
    35
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            sender_id: default_name(),
            receiver_id: default_name(),
        }
    }
}
impl Default for Admin {
    fn default() -> Self {
        Self {
            listen: default_admin_listen(),
        }
    }
}
impl Default for Policy {
    fn default() -> Self {
        Self {
            window_days: default_window_days(),
        }
    }
}

/// A text that is not for logs, such as an address with a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the one place that needs it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

/// Where key material comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file, read when it is needed: a renewed certificate is a changed file.
    File(PathBuf),
    /// The material itself, from the environment.
    Text(Secret),
}

impl Source {
    /// The material itself.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not text.
    pub fn read(&self) -> std::io::Result<String> {
        match self {
            Self::File(path) => std::fs::read_to_string(path).map_err(|cause| {
                std::io::Error::new(cause.kind(), format!("{}: {cause}", path.display()))
            }),
            Self::Text(text) => Ok(text.expose().to_owned()),
        }
    }

    /// Where an argument says that key material comes from: `file:PATH`, or
    /// `env:NAME` for a variable of the environment.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn from_argument(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("file:") {
            return Ok(Self::File(PathBuf::from(path)));
        }
        let name = text.strip_prefix("env:");
        let name = name.ok_or("must be file:PATH or env:NAME, never the key itself")?;
        let value = std::env::var(name);
        let value = value.map_err(|_| format!("the environment has no variable {name}"))?;
        Ok(Self::Text(Secret(without_line_end(&value).to_owned())))
    }
}

/// The file as it is written; [`Settings`] is what it means.
#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields, default)]
struct Written {
    listen: Option<SocketAddr>,
    data_dir: Option<PathBuf>,
    gateway: Gateway,
    tls: WrittenTls,
    database: WrittenDatabase,
    admin: Admin,
    paths: WrittenPaths,
    limits: Limits,
    policy: Policy,
    keys: WrittenKeys,
    log: Log,
    alerts: WrittenAlerts,
    trace: WrittenTrace,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct WrittenTls {
    cert: Option<String>,
    key: Option<String>,
    client_ca: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct WrittenDatabase {
    url: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct WrittenPaths {
    schemas: Option<PathBuf>,
    mappings: Option<PathBuf>,
    policy: Option<PathBuf>,
}

#[derive(Debug, Default, Deserialize)]
#[cfg_attr(test, derive(serde::Serialize))]
#[serde(deny_unknown_fields)]
struct WrittenKeys {
    data: Option<String>,
    previous: Option<String>,
    ring: Option<String>,
}

/// Keys that name a source of key material: their `file:` is kept as a path.
const SOURCES: [&str; 6] = [
    "tls.cert",
    "tls.key",
    "tls.client_ca",
    "keys.data",
    "alerts.ca",
    "keys.previous",
];

impl Settings {
    /// Loads the settings from `path`, or from [`DEFAULT_PATH`] when that
    /// file exists; without it all defaults hold.
    ///
    /// # Errors
    ///
    /// A [`Fault`] with file, line and key: a file that cannot be read, an
    /// unknown key, a value outside its range, a reference that leads nowhere.
    pub fn load(path: Option<&Path>) -> Result<Self, Fault> {
        SettingsFile::load(path).map(|(settings, _)| settings)
    }

    /// Reads the settings from a file that stands in `folder`.
    ///
    /// # Errors
    ///
    /// As [`Settings::load`].
    pub fn read(
        file: &TomlFile,
        folder: &Path,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, Fault> {
        // What the environment gave for a source, to tell it from a path.
        let mut given = HashMap::new();
        let written: Written = file.read_with(&mut |key, text| {
            if SOURCES.contains(&key) && !text.starts_with("env:") {
                return Ok(None);
            }
            let found = resolved(text, folder, environment)?;
            if let Some(text) = &found {
                given.insert(key.to_owned(), text.clone());
            }
            Ok(found)
        })?;
        if let Some((key, problem)) = written.problem() {
            return Err(file.fault(key, problem));
        }
        let source = |key: &str, text: Option<String>| -> Result<Option<Source>, Fault> {
            let from_environment = given.contains_key(key);
            text.map(|text| source(key, text, from_environment, folder))
                .transpose()
                .map_err(|problem| file.fault(key, problem))
        };
        let data_dir = folder.join(written.data_dir.unwrap_or_else(default_data_dir));
        let at = |key: &'static str, url: Option<String>, name: &str| match url {
            None => Ok(Database::Sqlite(data_dir.join(name))),
            Some(url) => database(url, folder).map_err(|problem| file.fault(key, problem)),
        };
        let database = at("database.url", written.database.url, "gateway.db")?;
        let ring = at("keys.ring", written.keys.ring, "ring.db")?;
        if ring == database {
            let problem = "must be another database than database.url".to_owned();
            return Err(file.fault("keys.ring", problem));
        }
        Ok(Self {
            listen: written.listen.unwrap_or_else(default_listen),
            gateway: written.gateway,
            tls: Tls {
                cert: source("tls.cert", written.tls.cert)?,
                key: source("tls.key", written.tls.key)?,
                client_ca: source("tls.client_ca", written.tls.client_ca)?,
            },
            database,
            admin: written.admin,
            paths: Paths {
                schemas: written.paths.schemas.map(|path| folder.join(path)),
                mappings: written.paths.mappings.map(|path| folder.join(path)),
                policy: written.paths.policy.map(|path| folder.join(path)),
            },
            limits: written.limits,
            policy: written.policy,
            data_key: source("keys.data", written.keys.data)?
                .unwrap_or_else(|| Source::File(data_dir.join("data.key"))),
            previous_key: source("keys.previous", written.keys.previous)?,
            ring,
            log: written.log,
            alerts: Alerts {
                ca: source("alerts.ca", written.alerts.ca.clone())?,
                ..written.alerts.read()
            },
            trace: written.trace.read(),
            data_dir,
            folder: folder.to_owned(),
        })
    }

    /// The text behind a reference of the directory, `file:PATH` or
    /// `env:NAME`, as it is now: a renewed key is a changed file. Relative
    /// paths start at the folder of the settings.
    ///
    /// # Errors
    ///
    /// Why there is none, without the text.
    pub fn secret(&self, reference: &str) -> Result<Secret, String> {
        let environment = |name: &str| std::env::var(name).ok();
        resolved(reference, &self.folder, &environment)?
            .map(Secret)
            .ok_or_else(|| "must be file:PATH or env:NAME".to_owned())
    }
}

impl Written {
    /// The first key whose value contradicts its range or another key.
    fn problem(&self) -> Option<(&'static str, String)> {
        for (key, name) in [
            ("gateway.sender_id", &self.gateway.sender_id),
            ("gateway.receiver_id", &self.gateway.receiver_id),
        ] {
            if name.trim().is_empty() || name.chars().count() > 40 {
                return Some((key, "must be 1 to 40 characters".to_owned()));
            }
        }
        if self.tls.cert.is_some() != self.tls.key.is_some() {
            let lonely = if self.tls.cert.is_some() {
                "tls.cert"
            } else {
                "tls.key"
            };
            return Some((lonely, "tls.cert and tls.key go together".to_owned()));
        }
        if !(28..=366).contains(&self.policy.window_days) {
            return Some(("policy.window_days", "must be 28 to 366".to_owned()));
        }
        let watching = self.alerts.problem().or_else(|| self.trace.problem());
        if watching.is_some() {
            return watching;
        }
        let outside = self.limits.outside();
        if outside.is_none() && self.limits.in_flight_bytes < self.limits.max_body_bytes {
            let problem = "must be at least limits.max_body_bytes".to_owned();
            return Some(("limits.in_flight_bytes", problem));
        }
        outside
    }
}

/// Where a test wants a debug build to be killed, `place:n`.
#[cfg(debug_assertions)]
#[must_use]
pub fn die_at() -> Option<String> {
    std::env::var("SIVI_DIE_AT").ok()
}

/// The text behind `file:PATH` or `env:NAME`, without a trailing line end.
fn resolved(
    text: &str,
    folder: &Path,
    environment: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<String>, String> {
    if let Some(path) = text.strip_prefix("file:") {
        let read = std::fs::read_to_string(folder.join(path))
            .map_err(|cause| format!("the file cannot be read: {cause}"))?;
        return Ok(Some(without_line_end(&read).to_owned()));
    }
    let Some(name) = text.strip_prefix("env:") else {
        return Ok(None);
    };
    match environment(name) {
        Some(value) => Ok(Some(without_line_end(&value).to_owned())),
        None => Err(format!("the environment has no variable {name}")),
    }
}

fn without_line_end(text: &str) -> &str {
    let text = text.strip_suffix('\n').unwrap_or(text);
    text.strip_suffix('\r').unwrap_or(text)
}

fn source(
    key: &str,
    text: String,
    from_environment: bool,
    folder: &Path,
) -> Result<Source, String> {
    if let Some(path) = text.strip_prefix("file:") {
        return Ok(Source::File(folder.join(path)));
    }
    if key.starts_with("keys.") {
        // A key in the file would be committed with it one day.
        return if from_environment {
            Ok(Source::Text(Secret(text)))
        } else {
            Err("must be file:PATH or env:NAME, never the key itself".to_owned())
        };
    }
    if text.starts_with("-----BEGIN ") {
        return Ok(Source::Text(Secret(text)));
    }
    Ok(Source::File(folder.join(text)))
}

/// A database that is named on the command line: `sqlite:PATH`, `postgres://…`,
/// or `file:` or `env:` and where to find one of these, since an address can
/// hold a password.
///
/// # Errors
///
/// What is wrong with it, without repeating it.
pub fn database_named(text: &str) -> Result<Database, String> {
    let environment = |name: &str| std::env::var(name).ok();
    let here = Path::new("");
    let found = resolved(text, here, &environment)?;
    database(found.unwrap_or_else(|| text.to_owned()), here)
}

fn database(url: String, folder: &Path) -> Result<Database, String> {
    if let Some(path) = url.strip_prefix("sqlite:") {
        let path = path.strip_prefix("//").unwrap_or(path);
        if path.is_empty() || path.contains([':', '?']) {
            return Err("must be sqlite:PATH, without options".to_owned());
        }
        return Ok(Database::Sqlite(folder.join(path)));
    }
    if url.starts_with("postgres://") || url.starts_with("postgresql://") {
        return Ok(Database::Postgres(Secret(url)));
    }
    Err("must be sqlite:PATH or postgres://…".to_owned())
}

mod address;
mod change;
mod limits;
mod log;
mod settings_file;
mod watching;

#[cfg(test)]
mod tests;
