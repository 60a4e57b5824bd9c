//! Certificates and the TLS configuration: rustls, TLS 1.2 and 1.3 only.

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{Timestamp, ToSpan as _, tz::TimeZone};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, ServerConfig, SignatureScheme};

use crate::certificate::Certificate;

/// Years that a self-signed certificate counts.
const SELF_SIGNED_YEARS: i16 = 10;
/// How long before its end it is made anew.
const RENEW_BEFORE: Duration = Duration::from_hours(30 * 24);

/// A certificate of our own making, for a start without set-up: where it and
/// its key lie, as PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SelfSigned {
    /// The certificate.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl SelfSigned {
    /// The self-signed certificate in `folder`, made when it is not there yet
    /// or ends soon. Says whether it was made now.
    ///
    /// # Errors
    ///
    /// [`TlsError`] when the folder cannot be written.
    pub fn in_folder(folder: &Path, now: Timestamp) -> Result<(Self, bool), TlsError> {
        let made = Self {
            chain: folder.join("self-signed.crt"),
            key: folder.join("self-signed.key"),
        };
        if made.key.exists() && made.is_good(now) {
            return Ok((made, false));
        }
        made.make(now)?;
        Ok((made, true))
    }

    fn is_good(&self, now: Timestamp) -> bool {
        let read = std::fs::read_to_string(&self.chain);
        let read = read.map(|text| Certificate::read_pem(&text));
        let until = match read {
            Ok(Ok(certificates)) => certificates.first().map(|leaf| leaf.not_after),
            Ok(Err(_)) | Err(_) => None,
        };
        until.is_some_and(|until| now + RENEW_BEFORE < until)
    }

    fn make(&self, now: Timestamp) -> Result<(), TlsError> {
        let wrong = |cause: rcgen::Error| TlsError::new(&self.chain, cause);
        let names = ["localhost", "127.0.0.1", "::1"].map(str::to_owned);
        let mut params = rcgen::CertificateParams::new(names).map_err(wrong)?;
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, "sivi-gateway self-signed");
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        let until = now.to_zoned(TimeZone::UTC).date();
        let until = until.saturating_add(SELF_SIGNED_YEARS.years());
        let (month, day) = (until.month().unsigned_abs(), until.day().unsigned_abs());
        params.not_after = rcgen::date_time_ymd(i32::from(until.year()), month, day);
        let key = rcgen::KeyPair::generate().map_err(wrong)?;
        let certificate = params.self_signed(&key).map_err(wrong)?;
        // A stop in between leaves a key without certificate, never a pair
        // that does not fit.
        if self.chain.exists() {
            std::fs::remove_file(&self.chain).map_err(|cause| TlsError::new(&self.chain, cause))?;
        }
        write_private(&self.key, &key.serialize_pem())?;
        write_private(&self.chain, &certificate.pem())
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

/// How to shake hands with a certificate chain and its key, both PEM texts:
/// for HTTP/2 and HTTP/1.1, and with any client certificate whose key the
/// client holds. Whose that is, and whether it counts, is asked per request:
/// a client hears the reason in an answer, not in an alert.
///
/// # Errors
///
/// [`TlsError`] says which of the two cannot be used.
pub fn server_config(chain: &str, key: &str) -> Result<Arc<ServerConfig>, TlsError> {
    let wrong = |what: &'static str| move |cause| TlsError::new(Path::new(what), cause);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong("tls.cert"))?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(wrong("tls.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let unfit = |cause| TlsError::new(Path::new("tls.cert"), cause);
    let mut config = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_client_cert_verifier(Arc::new(AnyHolder(provider)))
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Asks for a client certificate, does without, and lets any pass whose key
/// the client holds.
#[derive(Debug)]
struct AnyHolder(Arc<CryptoProvider>);

impl ClientCertVerifier for AnyHolder {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: a partner with a self-signed certificate would not find its own
    /// issuer among them, and send nothing.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_self_signed_certificate_is_kept_and_renewed_before_it_ends() {
        let folder = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().unwrap();
        let (made, is_new) = SelfSigned::in_folder(folder.path(), now).unwrap();
        assert!(is_new);
        let text = || std::fs::read_to_string(&made.chain).unwrap();
        let first = text();
        let until = Certificate::read_pem(&first).unwrap()[0].not_after;
        assert_eq!(until.to_string(), "2036-11-22T00:00:00Z");
        server_config(&first, &std::fs::read_to_string(&made.key).unwrap()).unwrap();
        let again = |now| SelfSigned::in_folder(folder.path(), now).unwrap().1;
        assert!(!again(now) && text() == first);
        assert!(!again(until - Duration::from_hours(31 * 24)));
        assert!(again(until - Duration::from_hours(30 * 24)));
        assert_ne!(text(), first);
        // Half a pair is no pair.
        std::fs::write(&made.chain, "").unwrap();
        assert!(again(now));
    }
}
