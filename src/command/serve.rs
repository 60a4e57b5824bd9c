//! `serve`: the daemon until it is told to stop.

use std::io::IsTerminal as _;
use std::path::Path;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use super::Failure;
use crate::app::{App, Reloader};
use crate::clock::Clock;
use crate::config::{LogFormat, LogLevel, Settings, SettingsFile};
use crate::supervise::keep_running;
use crate::trace::{self, Traces};

/// Files beside those of connections: database, log, outgoing connections.
const OWN_FILES: u64 = 256;

/// Serves until SIGTERM or SIGINT, then finishes what is in hand.
pub(super) fn serve(config: Option<&Path>) -> Result<(), Failure> {
    let (settings, file) = SettingsFile::load(config).map_err(Failure::environment)?;
    allow_open_files(settings.limits.max_connections);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::environment)?;
    let traces = Traces::open(&settings, runtime.handle().clone()).map_err(Failure::environment)?;
    let log = start_log(&settings, traces.as_ref());
    let level = settings.log.level;
    runtime.block_on(async {
        // Before anything can ask for it: a SIGHUP that nobody waits for ends
        // the process.
        let hangup = signal(SignalKind::hangup()).map_err(Failure::environment)?;
        let app = App::bind(settings, Clock::system()).await?;
        let address = app.address().map_err(Failure::environment)?;
        let admin = app.admin_address().map_err(Failure::environment)?;
        let stop = app.stop_token();
        let mut terminate = signal(SignalKind::terminate()).map_err(Failure::environment)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(Failure::environment)?;
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::info!("Stopping: requests in hand are finished");
            stop.cancel();
        });
        let reload = Reload {
            reloader: app.reloader(),
            log,
            level,
            file,
        };
        let reload = Arc::new(Mutex::new((hangup, reload)));
        let stop = app.stop_token();
        tokio::spawn(async move {
            let take_over = || {
                let reload = Arc::clone(&reload);
                async move {
                    let (hangup, reload) = &mut *reload.lock().await;
                    while hangup.recv().await.is_some() {
                        reload.take_over().await;
                    }
                }
            };
            keep_running("reload", &stop, take_over).await;
        });
        tracing::info!(%address, %admin, "Listening on https://{address}, operators on http://{admin}");
        let ran = app.run().await;
        if let Some(traces) = traces {
            traces.close().await;
        }
        ran.map_err(Failure::environment)
    })
}

/// What a SIGHUP needs.
struct Reload {
    reloader: Reloader,
    log: LogHandle,
    /// In use now.
    level: LogLevel,
    /// What the settings in use came from.
    file: SettingsFile,
}

impl Reload {
    /// Reads the settings again and puts them into use.
    async fn take_over(&mut self) {
        let (settings, now) = match self.file.read_again() {
            Ok(read) => read,
            Err(fault) => {
                tracing::error!("Nothing was reloaded: {fault}");
                return;
            }
        };
        let new_level = settings.log.level;
        match self.reloader.reload(settings).await {
            Ok(reloaded) => {
                self.file = now;
                // Not without need: while it changes, what others say is lost.
                if new_level != self.level {
                    // Fails only when nothing is logged at all.
                    let _ = self.log.reload(filter(new_level));
                    self.level = new_level;
                }
                for key in reloaded.waiting {
                    tracing::warn!(key, "{key} changed: it stays as it was until a restart");
                }
                if let Some(cause) = reloaded.certificate {
                    tracing::error!("The certificate cannot be used, the old one stays: {cause}");
                    tracing::info!("Settings were reloaded");
                } else {
                    tracing::info!("Settings and certificates were reloaded");
                }
            }
            Err(cause) => tracing::error!("Nothing was reloaded: {cause}"),
        }
    }
}

/// Lets this process have a file per connection, and some for itself, as far
/// as the system allows.
fn allow_open_files(connections: u64) {
    let needed = connections.saturating_add(OWN_FILES);
    let limit = getrlimit(Resource::Nofile);
    let allowed = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if allowed(limit.current) >= needed {
        return;
    }
    let most = needed.min(allowed(limit.maximum));
    let raised = Rlimit {
        current: Some(most),
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() || most < needed {
        tracing::warn!(
            "limits.max_connections needs {needed} open files and the system allows {}: \
             raise it (LimitNOFILE) or lower the setting",
            allowed(getrlimit(Resource::Nofile).current)
        );
    }
}

/// Logs go to standard error. Libraries stay at `warn`: what they say at
/// lower levels may hold values. Spans for a collector stay out of it: a line
/// reads well alone.
pub(super) fn start_log(settings: &Settings, traces: Option<&Traces>) -> LogHandle {
    let (filter, handle) = reload::Layer::new(filter(settings.log.level));
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match settings.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second subscriber in one process keeps the first.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(traces.map(Traces::layer))
        .try_init();
    handle
}

/// Changes what a running process logs.
type LogHandle = reload::Handle<EnvFilter, Registry>;

fn filter(level: LogLevel) -> EnvFilter {
    let level = level.as_str();
    EnvFilter::new(format!("warn,sivi_gateway={level},{}=off", trace::TARGET))
}
