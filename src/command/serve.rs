//! `serve`: the daemon until it is told to stop.

use std::io::IsTerminal as _;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::{Failure, settings};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{LogFormat, Settings};
use crate::trace::{self, Traces};

/// Serves until SIGTERM or SIGINT, then finishes what is in hand.
pub(super) fn serve(config: Option<&Path>) -> Result<(), Failure> {
    let settings = settings(config)?;
    #[cfg(debug_assertions)]
    if let Some(place) = crate::config::die_at() {
        crate::store::die_at(&place);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::environment)?;
    let traces = Traces::open(&settings, runtime.handle().clone()).map_err(Failure::environment)?;
    start_log(&settings, traces.as_ref());
    runtime.block_on(async {
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
        tracing::info!(%address, %admin, "Listening on https://{address}, operators on http://{admin}");
        app.run().await;
        if let Some(traces) = traces {
            traces.close().await;
        }
        Ok(())
    })
}

/// Logs go to standard error. Libraries stay at `warn`: what they say at
/// lower levels may hold values. Spans for a collector stay out of it: a line
/// reads well alone.
pub(super) fn start_log(settings: &Settings, traces: Option<&Traces>) {
    let level = settings.log.level.as_str();
    let filter = format!("warn,sivi_gateway={level},{}=off", trace::TARGET);
    let lines = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let lines = match settings.log.format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => lines.json().boxed(),
    };
    // A second subscriber in one process keeps the first.
    let _ = tracing_subscriber::registry()
        .with(lines.with_filter(EnvFilter::new(filter)))
        .with(traces.map(Traces::layer))
        .try_init();
}
