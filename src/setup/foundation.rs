//! What is built in or lies in files: schemas, mappings, policy, authorities.

use std::fmt;
use std::sync::Arc;

use super::SetupError;
use crate::certificate::Authorities;
use crate::config::{Settings, Source};
use crate::policy::Policy;
use crate::translate::{Mapping, Mappings};
use crate::validate::{Edition, Editions, Tolerance};

/// What is built in or lies in files.
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
        let client_ca = settings.tls.client_ca.as_ref().map(authorities).transpose();
        let client_ca = client_ca.map_err(SetupError::ClientCa)?.map(Arc::new);
        Self::with_files(Arc::new(settings), client_ca)
    }

    /// The same with schemas, mappings and policy as their files have them
    /// now: what `apply` held a directory against.
    ///
    /// # Errors
    ///
    /// [`SetupError`] names the file that cannot be used.
    pub fn reread(&self) -> Result<Self, SetupError> {
        Self::with_files(Arc::clone(&self.settings), self.client_ca.clone())
    }

    fn with_files(
        settings: Arc<Settings>,
        client_ca: Option<Arc<Authorities>>,
    ) -> Result<Self, SetupError> {
        let paths = &settings.paths;
        let editions = Editions::load(paths.schemas.as_deref()).map_err(SetupError::Schema)?;
        let mappings = Mappings::load(paths.mappings.as_deref()).map_err(SetupError::Mapping)?;
        let window = settings.policy.window_days;
        let policy =
            Policy::load(paths.policy.as_deref(), &editions, window).map_err(SetupError::Policy)?;
        Ok(Self {
            settings,
            editions: Arc::new(editions),
            mappings: Arc::new(mappings),
            policy: Arc::new(policy),
            client_ca,
        })
    }

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

    /// How messages in an edition and a dialect are read.
    ///
    /// # Errors
    ///
    /// [`Missing`] when there is no such edition or mapping.
    pub fn standing(&self, edition: &str, mapping: &str) -> Result<Standing, Missing> {
        let missing = |what, name: &str| Missing {
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

/// Something that the directory names and that is not there.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Missing {
    /// `edition` or `mapping`.
    pub what: &'static str,
    /// Its name.
    pub name: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no {} {:?}", self.what, self.name)
    }
}

impl std::error::Error for Missing {}
