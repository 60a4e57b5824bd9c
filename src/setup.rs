//! Everything that operators configured, as one snapshot that never changes.
//!
//! A request takes a snapshot and keeps it, so that a change of the
//! configuration never happens in the middle of a message. The daemon replaces
//! the snapshot when what is stored changes. A stored directory that this
//! node cannot use wholly gives a snapshot all the same, with its [`Trouble`]:
//! who may come in follows it, what cannot be decided is not.

mod foundation;
mod stored;
mod trouble;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

pub use foundation::{Foundation, Missing, Standing};
use stored::Stored;
pub use trouble::Trouble;

use crate::certificate::Authorities;
use crate::config::Settings;
use crate::directory::{Directory, Lookup, Party, Pin, Tenant};
use crate::domain::{PartyId, TenantId};
use crate::policy::{Policy, PolicyError};
use crate::seal::Keys;
use crate::store::{self, ApiKey, ApiKeys, Store};
use crate::toml_file::Fault;
use crate::validate::{Editions, SchemaError};

/// Everything configured at one moment.
#[derive(Clone)]
pub struct Setup {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The schemas.
    pub editions: Arc<Editions>,
    /// The privacy policy.
    pub policy: Arc<Policy>,
    /// Who vouches for client certificates.
    pub client_ca: Option<Arc<Authorities>>,
    /// The keys of the installation.
    pub keys: Keys,
    /// Parties, tenants and routes.
    pub directory: Arc<Lookup>,
    standings: Arc<HashMap<PartyId, Standing>>,
    fallback: Arc<Standing>,
    api_keys: Arc<HashMap<String, ApiKey>>,
    version: i64,
    directory_version: i64,
    trouble: Option<Trouble>,
}

impl Setup {
    /// Reads the stored directory and keys, for a start: all of it must fit.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when the store fails or does not fit the foundation.
    pub async fn read(
        foundation: &Foundation,
        store: &Store,
        keys: &Keys,
    ) -> Result<Self, SetupError> {
        let stored = Stored::read(store).await.map_err(SetupError::Store)?;
        tell_of_unreadable(&stored.api_keys);
        let directory = stored.directory().map_err(Trouble::Directory);
        let directory = directory.map_err(SetupError::Unusable)?;
        let setup = Self::build(foundation, keys, directory, stored)?;
        match setup.trouble {
            Some(trouble) => Err(SetupError::Unusable(trouble)),
            None => Ok(setup),
        }
    }

    /// What is stored now, after this snapshot. Fits whatever can be used of
    /// it: [`Setup::trouble`] says what cannot.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when the store fails or the foundation has no fallback.
    pub async fn read_on(
        &self,
        foundation: &Foundation,
        store: &Store,
    ) -> Result<Self, SetupError> {
        let stored = Stored::read(store).await.map_err(SetupError::Store)?;
        match stored.directory() {
            Ok(directory) => Self::build(foundation, &self.keys, directory, stored),
            Err(cause) => {
                let directory = stored.narrow(self.directory.directory());
                let older = Stored {
                    directory_version: self.directory_version,
                    ..stored
                };
                let setup = Self::build(foundation, &self.keys, directory, older)?;
                Ok(Self {
                    trouble: Some(Trouble::Directory(cause)),
                    ..setup
                })
            }
        }
    }

    /// Fits a directory to the foundation.
    fn build(
        foundation: &Foundation,
        keys: &Keys,
        directory: Directory,
        stored: Stored,
    ) -> Result<Self, SetupError> {
        let mut standings = HashMap::new();
        let mut missing = BTreeMap::new();
        for party in directory.parties.values() {
            match foundation.standing(&party.edition, &party.mapping) {
                Ok(standing) => drop(standings.insert(party.id.clone(), standing)),
                Err(what) => drop(missing.insert(party.id.clone(), what)),
            }
        }
        let fallback = foundation.standing("2017", "default");
        let fallback = fallback.map_err(SetupError::Missing)?;
        Ok(Self {
            settings: Arc::clone(&foundation.settings),
            editions: Arc::clone(&foundation.editions),
            policy: Arc::clone(&foundation.policy),
            client_ca: foundation.client_ca.clone(),
            keys: keys.clone(),
            directory: Arc::new(directory.index()),
            standings: Arc::new(standings),
            fallback: Arc::new(fallback),
            api_keys: by_id(stored.api_keys.readable),
            version: stored.version,
            directory_version: stored.directory_version,
            trouble: (!missing.is_empty()).then_some(Trouble::Missing(missing)),
        })
    }

    /// The same with other API keys, read with `version` of the store.
    #[must_use]
    pub fn with_api_keys(&self, api_keys: Vec<ApiKey>, version: i64) -> Self {
        Self {
            api_keys: by_id(api_keys),
            version,
            ..self.clone()
        }
    }

    /// The same with the authorities of `foundation`.
    #[must_use]
    pub fn with_authorities(&self, foundation: &Foundation) -> Self {
        Self {
            client_ca: foundation.client_ca.clone(),
            ..self.clone()
        }
    }

    /// What of the stored configuration cannot be used here.
    #[must_use]
    pub fn trouble(&self) -> Option<&Trouble> {
        self.trouble.as_ref()
    }

    /// A party.
    #[must_use]
    pub fn party(&self, id: &PartyId) -> Option<&Party> {
        self.directory.directory().party(id)
    }

    /// A tenant.
    #[must_use]
    pub fn tenant(&self, id: &TenantId) -> Option<&Tenant> {
        self.directory.directory().tenant(id)
    }

    /// How messages of a party are read; none while its mapping or edition is
    /// not there: then they cannot be read, and must not be read otherwise.
    #[must_use]
    pub fn standing(&self, party: &PartyId) -> Option<&Standing> {
        let standing = self.standings.get(party);
        standing.or_else(|| self.party(party).is_none().then_some(&*self.fallback))
    }

    /// The same for what follows the reading, and for answers: of a party that
    /// cannot be read, as of one that is not known.
    #[must_use]
    pub fn standing_or_fallback(&self, party: &PartyId) -> &Standing {
        self.standings.get(party).unwrap_or(&self.fallback)
    }

    /// How messages are read of which the sender is not known.
    #[must_use]
    pub fn fallback(&self) -> &Standing {
        &self.fallback
    }

    /// Parties that are known by a name which nobody can vouch for: there is
    /// no `tls.client_ca`.
    pub fn parties_without_authority(&self) -> impl Iterator<Item = &PartyId> {
        let by_name = |pin: &Pin| matches!(pin, Pin::Name { .. });
        let parties = self.directory.directory().parties.values();
        parties
            .filter(move |party| self.client_ca.is_none() && party.certificates.iter().any(by_name))
            .map(|party| &party.id)
    }

    /// An API key.
    #[must_use]
    pub fn api_key(&self, id: &str) -> Option<&ApiKey> {
        self.api_keys.get(id)
    }

    /// Which state of the store this was read from.
    #[must_use]
    pub fn version(&self) -> i64 {
        self.version
    }

    /// The version of the directory in it: what is decided with it can only be
    /// stored while the directory has this version.
    #[must_use]
    pub fn directory_version(&self) -> i64 {
        self.directory_version
    }
}

/// Says which API keys cannot be read and so open nothing.
pub fn tell_of_unreadable(api_keys: &ApiKeys) {
    for id in &api_keys.unreadable {
        tracing::error!(key.id = %id, "API key {id} cannot be read and does not count: revoke it and issue another");
    }
}

fn by_id(api_keys: Vec<ApiKey>) -> Arc<HashMap<String, ApiKey>> {
    let by_id = api_keys.into_iter().map(|key| (key.id.clone(), key));
    Arc::new(by_id.collect())
}

/// The current snapshot, and who replaces it.
#[derive(Clone)]
pub struct Current(watch::Receiver<Arc<Setup>>);

impl Current {
    /// A snapshot and the sender that replaces it.
    #[must_use]
    pub fn new(setup: Setup) -> (watch::Sender<Arc<Setup>>, Self) {
        let (sender, receiver) = watch::channel(Arc::new(setup));
        (sender, Self(receiver))
    }

    /// The snapshot that holds now.
    #[must_use]
    pub fn get(&self) -> Arc<Setup> {
        Arc::clone(&self.0.borrow())
    }

    /// Waits up to `limit` for another snapshot than the one of `version`;
    /// false when none came.
    pub async fn moved_on(&self, version: i64, limit: Duration) -> bool {
        let mut snapshots = self.0.clone();
        let newer = snapshots.wait_for(|setup| setup.version() != version);
        tokio::time::timeout(limit, newer).await.is_ok()
    }

    /// Waits for a snapshot that was not got yet; false when none will come.
    pub async fn changed(&mut self) -> bool {
        self.0.changed().await.is_ok()
    }
}

/// Why a snapshot could not be made.
#[derive(Debug)]
pub enum SetupError {
    /// A schema cannot be used.
    Schema(SchemaError),
    /// A mapping cannot be used.
    Mapping(Fault),
    /// The policy cannot be used.
    Policy(PolicyError),
    /// The authorities of client certificates cannot be used.
    ClientCa(String),
    /// There is no fallback for whom nobody knows.
    Missing(Missing),
    /// The stored directory cannot be used wholly.
    Unusable(Trouble),
    /// Reading the files failed by a fault of ours.
    Panicked,
    /// The store failed.
    Store(store::Error),
}

impl fmt::Display for SetupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Schema(cause) => write!(f, "schemas: {cause}"),
            Self::Mapping(cause) => write!(f, "mappings: {cause}"),
            Self::Policy(cause) => write!(f, "policy: {cause}"),
            Self::ClientCa(cause) => write!(f, "tls.client_ca: {cause}"),
            Self::Missing(cause) => write!(f, "{cause}"),
            Self::Unusable(cause) => write!(f, "{cause}"),
            Self::Panicked => f.write_str("reading the files failed by a fault of ours"),
            Self::Store(cause) => write!(f, "store: {cause}"),
        }
    }
}

impl std::error::Error for SetupError {}
