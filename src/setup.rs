//! Everything that operators configured, as one snapshot that never changes.
//!
//! A request takes a snapshot and keeps it, so that a change of the
//! configuration never happens in the middle of a message. The daemon replaces
//! the snapshot when the stored directory changes.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::certificate::Authorities;
use crate::config::{Settings, Source};
use crate::directory::{Directory, Lookup, Party, Pin, Tenant};
use crate::domain::{PartyId, TenantId};
use crate::policy::{Policy, PolicyError};
use crate::seal::Keys;
use crate::store::{self, ApiKey, Store};
use crate::toml_file::Fault;
use crate::translate::{Mapping, Mappings};
use crate::validate::{Edition, Editions, SchemaError, Tolerance};

/// What is built in or lies in files, and is read once.
#[derive(Clone)]
pub struct Foundation {
    /// The settings.
    pub settings: Arc<Settings>,
    /// The schemas.
    pub editions: Arc<Editions>,
    /// The dialects.
    pub mappings: Arc<Mappings>,
    /// The privacy policy.
    pub policy: Arc<Policy>,
    /// Who vouches for client certificates.
    pub client_ca: Option<Arc<Authorities>>,
}

impl Foundation {
    /// Reads schemas, mappings, policy and the authorities of clients.
    ///
    /// # Errors
    ///
    /// [`SetupError`] names the file that cannot be used.
    pub fn load(settings: Settings) -> Result<Self, SetupError> {
        let editions =
            Editions::load(settings.paths.schemas.as_deref()).map_err(SetupError::Schema)?;
        let mappings =
            Mappings::load(settings.paths.mappings.as_deref()).map_err(SetupError::Mapping)?;
        let window = settings.policy.window_days;
        let policy = Policy::load(settings.paths.policy.as_deref(), &editions, window)
            .map_err(SetupError::Policy)?;
        let client_ca = settings.tls.client_ca.as_ref().map(authorities).transpose();
        Ok(Self {
            client_ca: client_ca.map_err(SetupError::ClientCa)?.map(Arc::new),
            settings: Arc::new(settings),
            editions: Arc::new(editions),
            mappings: Arc::new(mappings),
            policy: Arc::new(policy),
        })
    }
}

impl Foundation {
    /// The same with the authorities of clients as their file has them now,
    /// if they changed.
    ///
    /// # Errors
    ///
    /// [`SetupError::ClientCa`].
    pub fn renewed(&self) -> Result<Option<Self>, SetupError> {
        let Some(source) = &self.settings.tls.client_ca else {
            return Ok(None);
        };
        let read = authorities(source).map_err(SetupError::ClientCa)?;
        let known = self.client_ca.as_ref().map(|known| known.certificates());
        if known == Some(read.certificates()) {
            return Ok(None);
        }
        Ok(Some(Self {
            client_ca: Some(Arc::new(read)),
            ..self.clone()
        }))
    }
}

fn authorities(source: &Source) -> Result<Authorities, String> {
    let text = source.read().map_err(|cause| cause.to_string())?;
    Authorities::from_pem(&text).map_err(|cause| cause.to_string())
}

/// How messages of one party are read.
#[derive(Clone, Debug)]
pub struct Standing {
    /// The edition agreed with the party.
    pub edition: Arc<Edition>,
    /// Its dialect.
    pub mapping: Arc<Mapping>,
    /// What validation forgives it.
    pub tolerance: Tolerance,
}

impl Standing {
    /// The standing for a message whose ids and codes are translated already.
    #[must_use]
    pub fn normalised(&self) -> Self {
        Self {
            mapping: Arc::new(self.mapping.without_translation()),
            ..self.clone()
        }
    }
}

/// Everything configured at one moment.
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
    pub directory: Lookup,
    standings: HashMap<PartyId, Arc<Standing>>,
    fallback: Arc<Standing>,
    api_keys: HashMap<String, ApiKey>,
    version: i64,
    directory_version: i64,
}

impl Setup {
    /// Fits a stored directory to the foundation.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when a party names a mapping or edition that is not
    /// there any more.
    pub fn build(
        foundation: &Foundation,
        keys: Keys,
        directory: Directory,
        api_keys: Vec<ApiKey>,
        version: i64,
        directory_version: i64,
    ) -> Result<Self, SetupError> {
        let mut standings = HashMap::new();
        for party in directory.parties.values() {
            let standing = foundation.standing(&party.edition, &party.mapping)?;
            standings.insert(party.id.clone(), Arc::new(standing));
        }
        Ok(Self {
            settings: Arc::clone(&foundation.settings),
            editions: Arc::clone(&foundation.editions),
            policy: Arc::clone(&foundation.policy),
            client_ca: foundation.client_ca.clone(),
            keys,
            directory: directory.index(),
            standings,
            fallback: Arc::new(foundation.standing("2017", "default")?),
            api_keys: api_keys
                .into_iter()
                .map(|key| (key.id.clone(), key))
                .collect(),
            version,
            directory_version,
        })
    }

    /// Reads the stored directory and keys.
    ///
    /// # Errors
    ///
    /// [`SetupError`] when the store fails or does not fit the foundation.
    pub async fn read(
        foundation: &Foundation,
        store: &Store,
        keys: &Keys,
    ) -> Result<Self, SetupError> {
        let version = store.changes_version().await.map_err(SetupError::Store)?;
        let stored = store.directory().await.map_err(SetupError::Store)?;
        let records = stored.records.iter().map(|record| {
            (
                record.kind.as_str(),
                record.id.as_str(),
                record.body.as_str(),
            )
        });
        let directory = Directory::from_records(records)
            .map_err(|cause| SetupError::Directory(cause.to_string()))?;
        let api_keys = store.api_keys().await.map_err(SetupError::Store)?;
        Self::build(
            foundation,
            keys.clone(),
            directory,
            api_keys,
            version,
            stored.version,
        )
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

    /// How messages of a party are read.
    #[must_use]
    pub fn standing(&self, party: &PartyId) -> &Standing {
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

impl Foundation {
    /// How messages in an edition and a dialect are read.
    ///
    /// # Errors
    ///
    /// [`SetupError::Missing`] when there is no such edition or mapping.
    pub fn standing(&self, edition: &str, mapping: &str) -> Result<Standing, SetupError> {
        let missing = |what, name: &str| SetupError::Missing {
            what,
            name: name.to_owned(),
        };
        let edition = self
            .editions
            .get(edition)
            .ok_or_else(|| missing("edition", edition))?;
        let mapping = self
            .mappings
            .get(mapping)
            .ok_or_else(|| missing("mapping", mapping))?;
        let tolerance = mapping.tolerance();
        Ok(Standing {
            edition: Arc::clone(edition),
            mapping: Arc::new(mapping.clone()),
            tolerance,
        })
    }
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
    /// The stored directory cannot be read.
    Directory(String),
    /// The directory names something that is not there.
    Missing {
        /// `edition` or `mapping`.
        what: &'static str,
        /// Its name.
        name: String,
    },
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
            Self::Directory(cause) => write!(f, "stored directory: {cause}"),
            Self::Missing { what, name } => write!(f, "there is no {what} {name:?}"),
            Self::Store(cause) => write!(f, "store: {cause}"),
        }
    }
}

impl std::error::Error for SetupError {}
