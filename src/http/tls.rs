//! Certificates and the TLS acceptor: rustls, TLS 1.2 and 1.3 only.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;

/// Where the certificate and its key lie, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The chain, leaf first.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl Certificate {
    /// The self-signed certificate in `folder`, made when it is not there yet.
    /// Says whether it was made now.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the folder cannot be written.
    pub fn self_signed(folder: &Path) -> Result<(Self, bool), TlsError> {
        let certificate = Self {
            chain: folder.join("self-signed.crt"),
            key: folder.join("self-signed.key"),
        };
        if certificate.chain.exists() && certificate.key.exists() {
            return Ok((certificate, false));
        }
        let names = ["localhost", "127.0.0.1", "::1"]
            .map(str::to_owned)
            .to_vec();
        let made = rcgen::generate_simple_self_signed(names)
            .map_err(|cause| TlsError::new(&certificate.chain, cause))?;
        write_private(&certificate.key, &made.signing_key.serialize_pem())?;
        write_private(&certificate.chain, &made.cert.pem())?;
        Ok((certificate, true))
    }
}

fn write_private(path: &Path, text: &str) -> Result<(), TlsError> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)
        .map_err(|cause| TlsError::new(path, cause))?;
    file.write_all(text.as_bytes())
        .map_err(|cause| TlsError::new(path, cause))
}

/// An acceptor for a certificate chain and its key, both PEM texts, for HTTP/2
/// and HTTP/1.1.
///
/// # Errors
///
/// [`TlsError`] says which of the two cannot be used.
pub fn acceptor(chain: &str, key: &str) -> Result<TlsAcceptor, TlsError> {
    let wrong = |what: &'static str| move |cause| TlsError::new(Path::new(what), cause);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong("tls.cert"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(wrong("tls.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unfit = |cause| TlsError::new(Path::new("tls.cert"), cause);
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// A certificate or key that cannot be used.
#[derive(Debug)]
pub struct TlsError {
    file: PathBuf,
    cause: String,
}

impl TlsError {
    /// What is wrong with a file, or with the setting of this name.
    #[must_use]
    pub fn new(file: &Path, cause: impl fmt::Display) -> Self {
        Self {
            file: file.to_owned(),
            cause: cause.to_string(),
        }
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.cause)
    }
}

impl std::error::Error for TlsError {}
