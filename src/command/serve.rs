//! `serve`: the daemon until it is told to stop.

use std::io::IsTerminal as _;
use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, reload};

use super::Failure;
use crate::app::{App, Reloader};
use crate::clock::Clock;
use crate::config::{LogFormat, LogLevel, Settings, SettingsFile};
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
    let mut level = settings.log.level;
    runtime.block_on(async {
        // Before anything can ask for it: a SIGHUP that nobody waits for ends
        // the process.
        let mut hangup = signal(SignalKind::hangup()).map_err(Failure::environment)?;
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
        let reloader = app.reloader();
        let mut file = file;
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                take_over(&reloader, &log, &mut level, &mut file).await;
            }
        });
        tracing::info!(%address, %admin, "Listening on https://{address}, operators on http://{admin}");
        app.run().await;
        if let Some(traces) = traces {
            traces.close().await;
        }
        Ok(())
    })
}

/// Reads the settings again and puts them into use.
async fn take_over(
    reloader: &Reloader,
    log: &LogHandle,
    level: &mut LogLevel,
    file: &mut SettingsFile,
) {
    let (settings, now) = match file.read_again() {
        Ok(read) => read,
        Err(fault) => {
            tracing::error!("Nothing was reloaded: {fault}");
            return;
        }
    };
    let new_level = settings.log.level;
    match reloader.reload(settings).await {
        Ok(reloaded) => {
            *file = now;
            // Not without need: while it changes, what others say is lost.
            if new_level != *level {
                // Fails only when nothing is logged at all.
                let _ = log.reload(filter(new_level));
                *level = new_level;
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
