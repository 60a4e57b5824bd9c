//! The certificate by which parties know the gateway.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rustls::ServerConfig;
use zeroize::Zeroizing;

use crate::certificate::Certificate;
use crate::config::{Settings, Source};
use crate::http::{self, SelfSigned, TlsError};

/// The certificate in use.
pub(super) struct OwnCertificate {
    chain: String,
    key: Zeroizing<String>,
    /// How to shake hands with it.
    pub(super) config: Arc<ServerConfig>,
    /// Until when it counts.
    pub(super) ends_at: Timestamp,
}

impl OwnCertificate {
    /// Reads the configured certificate, or a self-signed one in the data
    /// folder, which is made when it is not there or ends soon.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when it cannot be used.
    pub(super) fn load(settings: &Settings, now: Timestamp) -> Result<Self, TlsError> {
        let (chain, key) = match (&settings.tls.cert, &settings.tls.key) {
            (Some(chain), Some(key)) => (chain.clone(), key.clone()),
            _ => self_signed(&settings.data_dir, now)?,
        };
        let read = |name: &'static str, source: &Source| {
            let read = source.read();
            read.map_err(|cause| TlsError::new(Path::new(name), cause))
        };
        let chain = read("tls.cert", &chain)?;
        let key = Zeroizing::new(read("tls.key", &key)?);
        let config = http::server_config(&chain, &key)?;
        let unfit = |cause| TlsError::new(Path::new("tls.cert"), cause);
        let ends = Certificate::read_pem(&chain).map_err(unfit)?;
        // A chain counts no longer than its shortest part.
        let ends_at = ends.iter().map(|certificate| certificate.not_after).min();
        Ok(Self {
            chain,
            key,
            config,
            ends_at: ends_at.unwrap_or(now),
        })
    }

    /// True when both are the same pair.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.chain == other.chain && self.key == other.key
    }
}

fn self_signed(folder: &Path, now: Timestamp) -> Result<(Source, Source), TlsError> {
    let (found, is_new) = SelfSigned::in_folder(folder, now)?;
    if is_new {
        tracing::warn!(
            "A new self-signed certificate was made: {}",
            found.chain.display()
        );
    }
    Ok((Source::File(found.chain), Source::File(found.key)))
}
