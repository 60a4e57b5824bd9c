//! What changes while the daemon runs: the directory, the settings, the
//! certificates. Each change is complete or does not happen.

use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use rustls::ServerConfig;
use tokio::sync::{Mutex, watch};
use tokio::task::JoinError;
use tokio_util::sync::CancellationToken;

use super::own_certificate::OwnCertificate;
use super::{StartError, connection_limits};
use crate::config::Settings;
use crate::http::{self, TlsError};
use crate::receive::Intake;
use crate::seal::Keys;
use crate::setup::{Foundation, Setup, SetupError, tell_of_unreadable};
use crate::store::ApiKey;

/// How often the stored configuration is compared with the one in use. The
/// contract gives five seconds.
const LOOK: Duration = Duration::from_secs(1);

/// What is in use, and who hears when it is replaced.
pub(super) struct Live {
    foundation: Mutex<Foundation>,
    keys: Keys,
    intake: Intake,
    setup: watch::Sender<Arc<Setup>>,
    tls: watch::Sender<Arc<ServerConfig>>,
    connections: watch::Sender<http::Limits>,
    own: StdMutex<OwnCertificate>,
}

impl Live {
    pub(super) fn new(
        foundation: Foundation,
        keys: Keys,
        intake: Intake,
        setup: watch::Sender<Arc<Setup>>,
        own: OwnCertificate,
    ) -> Self {
        Self {
            connections: watch::Sender::new(connection_limits(&foundation.settings)),
            tls: watch::Sender::new(Arc::clone(&own.config)),
            own: StdMutex::new(own),
            foundation: Mutex::new(foundation),
            keys,
            intake,
            setup,
        }
    }

    /// How to shake hands.
    pub(super) fn tls(&self) -> watch::Receiver<Arc<ServerConfig>> {
        self.tls.subscribe()
    }

    /// The bounds on connections.
    pub(super) fn connections(&self) -> watch::Receiver<http::Limits> {
        self.connections.subscribe()
    }

    /// The configuration in use.
    pub(super) fn setup(&self) -> Arc<Setup> {
        self.intake.current.get()
    }

    /// Until when the gateway's own certificate counts.
    pub(super) fn own_ends_at(&self) -> Timestamp {
        self.own().ends_at
    }

    fn own(&self) -> std::sync::MutexGuard<'_, OwnCertificate> {
        // Replaced as a whole.
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows changes that commands made in the store, and the days.
    pub(super) async fn follow(self: Arc<Self>, stop: CancellationToken) {
        let mut fault = String::new();
        let pause = async || {
            // An Err is the pause that passed without anybody asking.
            drop(tokio::time::timeout(LOOK, self.intake.look_again.notified()).await);
        };
        while stop.run_until_cancelled(pause()).await.is_some() {
            self.intake.catch_up.follow(self.intake.days());
            let looked = self.look().await;
            let now = looked
                .err()
                .map_or_else(String::new, |cause| cause.to_string());
            // Once per fault, not once per look.
            if !now.is_empty() && now != fault {
                tracing::error!("The stored configuration cannot be read: {now}");
            }
            fault = now;
        }
    }

    /// Compares what is stored with what is in use, and takes over what
    /// changed: API keys at once, the directory with the files that it was
    /// held against.
    ///
    /// # Errors
    ///
    /// The store failed.
    async fn look(&self) -> Result<(), SetupError> {
        let store = &self.intake.store;
        let version = store.changes_version().await.map_err(SetupError::Store)?;
        if version == self.setup().version() && self.setup().trouble().is_none() {
            return Ok(());
        }
        if version != self.setup().version() {
            let directory = store.directory_version().await;
            let directory = directory.map_err(SetupError::Store)?;
            let keys = store.api_keys().await.map_err(SetupError::Store)?;
            tell_of_unreadable(&keys);
            // A revoked key waits for nothing: no lock, and no file.
            if self.take_keys_over(keys.readable, version, directory) {
                tracing::info!("The API keys were read again");
                return Ok(());
            }
        }
        let mut foundation = self.foundation.lock().await;
        let setup = self.setup();
        let read = foundation.clone();
        let read = tokio::task::spawn_blocking(move || read.reread()).await;
        let (now, fault) = match read_to_its_end(read) {
            Some(Ok(now)) => (now, None),
            Some(Err(fault)) => (foundation.clone(), Some(fault)),
            // It is stopping.
            None => return Ok(()),
        };
        let next = setup.read_on(&now, store).await?;
        if next.version() == setup.version() && next.trouble() == setup.trouble() {
            return Ok(());
        }
        tell(&setup, &next, fault.as_ref());
        self.replace(next);
        *foundation = now;
        Ok(())
    }

    /// Puts API keys into use that were read at `version`, when the directory
    /// had the version `directory`, unless newer ones are. True when there is
    /// nothing else to take over.
    fn take_keys_over(&self, keys: Vec<ApiKey>, version: i64, directory: i64) -> bool {
        let mut is_all = false;
        self.setup.send_if_modified(|setup| {
            if setup.version() >= version {
                return false;
            }
            let is_followed = directory == setup.directory_version();
            is_all = is_followed && setup.trouble().is_none();
            let counts = if is_followed {
                version
            } else {
                setup.version()
            };
            *setup = Arc::new(setup.with_api_keys(keys, counts));
            true
        });
        is_all
    }

    /// Takes new settings over, with the files that they name. When anything
    /// of these cannot be used, everything stays as it was. The gateway's own
    /// certificate is looked at apart: one that cannot be used must not keep
    /// withdrawn authorities trusted.
    ///
    /// # Errors
    ///
    /// [`StartError::Setup`].
    pub(super) async fn reload(&self, new: Settings) -> Result<Reloaded, StartError> {
        let mut foundation = self.foundation.lock().await;
        let (settings, waiting) = foundation.settings.take_over(new);
        let loading = tokio::task::spawn_blocking(move || Foundation::load(settings));
        let loaded = read_to_its_end(loading.await).ok_or(StartError::Interrupted)?;
        let loaded = loaded.map_err(StartError::Setup)?;
        let read = Setup::read(&loaded, &self.intake.store, &self.keys).await;
        self.replace(read.map_err(StartError::Setup)?);
        self.connections
            .send_replace(connection_limits(&loaded.settings));
        let own = self.renew_own(&loaded);
        *foundation = loaded;
        Ok(Reloaded {
            waiting,
            certificate: own.err(),
        })
    }

    /// Takes certificates over whose files changed: a renewal by ACME gives no
    /// signal. Gives what cannot be used and stays as it was, each for itself;
    /// half-written files are read again next time.
    pub(super) async fn renew_certificates(&self) -> Vec<StartError> {
        let mut foundation = self.foundation.lock().await;
        // First: what is withdrawn counts no longer, whatever else is wrong.
        let authorities = self.renew_authorities(&mut foundation);
        let own = self.renew_own(&foundation);
        let faults = [
            authorities.err().map(StartError::Setup),
            own.err().map(StartError::Tls),
        ];
        faults.into_iter().flatten().collect()
    }

    fn renew_authorities(&self, foundation: &mut Foundation) -> Result<(), SetupError> {
        if let Some(renewed) = foundation.renewed()? {
            let setup = self.setup().with_authorities(&renewed);
            self.setup.send_replace(Arc::new(setup));
            *foundation = renewed;
            tracing::info!("The authorities of client certificates were replaced");
        }
        Ok(())
    }

    fn renew_own(&self, foundation: &Foundation) -> Result<(), TlsError> {
        let own = OwnCertificate::load(&foundation.settings, self.intake.clock.now())?;
        if !self.own().is(&own) {
            self.show(own);
            tracing::info!("The certificate was replaced");
        }
        Ok(())
    }

    fn show(&self, own: OwnCertificate) {
        self.tls.send_replace(Arc::clone(&own.config));
        *self.own() = own;
    }

    /// Puts a snapshot into use, after which what waits is tried with it.
    fn replace(&self, setup: Setup) {
        warn_of_parties_without_authority(&setup);
        let publish = || drop(self.setup.send_replace(Arc::new(setup)));
        self.intake.catch_up.change(publish);
    }
}

/// What came of reading files; none when the daemon stops meanwhile. A reader
/// that panics is a file that cannot be used: it must not pass for a stop.
fn read_to_its_end<T>(
    read: Result<Result<T, SetupError>, JoinError>,
) -> Option<Result<T, SetupError>> {
    match read {
        Ok(read) => Some(read),
        Err(ended) => ended.is_panic().then_some(Err(SetupError::Panicked)),
    }
}

/// Says once what a look found.
fn tell(before: &Setup, next: &Setup, fault: Option<&SetupError>) {
    if let Some(fault) = fault {
        tracing::error!(
            "The directory changed, and the files of before stay in use with it: {fault}"
        );
    }
    match (before.trouble(), next.trouble()) {
        (_, None) => tracing::info!("The configuration was reloaded"),
        (before, Some(trouble)) if before != Some(trouble) => {
            tracing::error!("Not all of the stored configuration can be used: {trouble}");
        }
        (_, Some(_)) => {}
    }
}

/// Says who cannot come in by the certificate that the directory names.
pub(super) fn warn_of_parties_without_authority(setup: &Setup) {
    for party in setup.parties_without_authority() {
        tracing::warn!(
            "Party {party} is known by issuer and subject, and no tls.client_ca can vouch for it"
        );
    }
}

/// What came of new settings that were taken over.
#[derive(Debug)]
pub struct Reloaded {
    /// The names of changed settings that wait for a restart.
    pub waiting: Vec<&'static str>,
    /// Why the gateway's own certificate stays the one of before.
    pub certificate: Option<TlsError>,
}

/// Reloads a running daemon.
#[derive(Clone)]
pub struct Reloader(pub(super) Arc<Live>);

impl Reloader {
    /// Takes new settings over while requests go on.
    ///
    /// # Errors
    ///
    /// [`StartError::Setup`] when a file cannot be used; then everything is as
    /// before.
    pub async fn reload(&self, settings: Settings) -> Result<Reloaded, StartError> {
        self.0.reload(settings).await
    }

    /// Takes certificates over whose files changed, and makes a self-signed
    /// one anew that ends soon; gives what cannot be used. A running daemon
    /// does so every minute.
    pub async fn renew_certificates(&self) -> Vec<StartError> {
        self.0.renew_certificates().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_reader_that_panics_is_a_fault_and_no_stop() {
        let panicked = tokio::task::spawn_blocking(|| -> Result<(), SetupError> {
            panic!("on purpose");
        });
        let read = read_to_its_end(panicked.await);
        assert!(matches!(read, Some(Err(SetupError::Panicked))));
        let stopped = tokio::spawn(std::future::pending::<Result<(), SetupError>>());
        stopped.abort();
        assert!(read_to_its_end(stopped.await).is_none());
    }
}
