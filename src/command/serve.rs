//! `serve`: the daemon until it is told to stop.

use std::io::IsTerminal as _;
use std::path::Path;

use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::{Failure, settings};
use crate::app::App;
use crate::clock::Clock;
use crate::config::{LogFormat, Settings};

/// Serves until SIGTERM or SIGINT, then finishes what is in hand.
pub(super) fn serve(config: Option<&Path>) -> Result<(), Failure> {
    let settings = settings(config)?;
    start_log(&settings);
    #[cfg(debug_assertions)]
    if let Some(place) = crate::config::die_at() {
        crate::store::die_at(&place);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Failure::environment)?;
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
        Ok(())
    })
}

/// Logs go to standard error. Libraries stay at `warn`: what they say at
/// lower levels may hold values.
pub(super) fn start_log(settings: &Settings) {
    let filter = EnvFilter::new(format!("warn,sivi_gateway={}", settings.log.level.as_str()));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    // A second subscriber in one process keeps the first.
    let _ = match settings.log.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
