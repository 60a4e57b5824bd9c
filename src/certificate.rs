//! X.509: what a certificate says, and whether an authority vouches for it.
//!
//! It knows no party, no connection and no clock: the moment is passed in.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate, X509Name};

use crate::domain::{DistinguishedName, Fingerprint};

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// SHA-256 of its DER.
    pub fingerprint: Fingerprint,
    /// Who issued it to whom; `None` when a name holds something that is no text.
    pub names: Option<Names>,
    /// From when it counts.
    pub not_before: Timestamp,
    /// Until when it counts, this moment included (RFC 5280, section 4.1.2.5).
    pub not_after: Timestamp,
}

/// Who issued a certificate to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Who issued it.
    pub issuer: DistinguishedName,
    /// To whom.
    pub subject: DistinguishedName,
}

impl Certificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    ///
    /// [`CertificateError::Unreadable`].
    pub fn read(der: &[u8]) -> Result<Self, CertificateError> {
        let unreadable = |_| CertificateError::Unreadable;
        let (_, read) = X509Certificate::from_der(der).map_err(unreadable)?;
        let names = name(read.issuer())
            .zip(name(read.subject()))
            .map(|(issuer, subject)| Names { issuer, subject });
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, der);
        let mut bytes = [0; Fingerprint::LEN];
        bytes.copy_from_slice(digest.as_ref());
        Ok(Self {
            fingerprint: Fingerprint::from_bytes(bytes),
            names,
            not_before: moment(read.validity().not_before)?,
            not_after: moment(read.validity().not_after)?,
        })
    }

    /// Reads the certificates of a PEM text, in their order.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] for a text without certificates or with one that
    /// cannot be read.
    pub fn read_pem(text: &str) -> Result<Vec<Self>, CertificateError> {
        let read = |der: CertificateDer<'_>| Self::read(&der);
        ders(text)?.into_iter().map(read).collect()
    }

    /// True within its dates.
    #[must_use]
    pub fn is_current(&self, at: Timestamp) -> bool {
        self.not_before <= at && at <= self.not_after
    }
}

fn moment(time: ASN1Time) -> Result<Timestamp, CertificateError> {
    Timestamp::from_second(time.timestamp()).map_err(|_| CertificateError::Unreadable)
}

/// Certificates name the most general part first, RFC 4514 last.
fn name(name: &X509Name<'_>) -> Option<DistinguishedName> {
    let mut parts: Vec<Vec<(String, String)>> = Vec::new();
    for part in name.iter() {
        let one = part.iter().map(|entry| {
            let value = entry.as_str().ok()?;
            Some((entry.attr_type().to_id_string(), value.to_owned()))
        });
        parts.push(one.collect::<Option<_>>()?);
    }
    parts.reverse();
    Some(DistinguishedName::new(parts))
}

fn ders(text: &str) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let found = CertificateDer::pem_slice_iter(text.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| CertificateError::Unreadable)?;
    if found.is_empty() {
        return Err(CertificateError::Missing);
    }
    Ok(found)
}

/// The authorities that may vouch for client certificates.
#[derive(Clone, Debug)]
pub struct Authorities {
    certificates: Vec<Certificate>,
    /// One for each of the certificates: a verifier does not look at the dates
    /// of its own anchor.
    verifiers: Vec<Arc<dyn ClientCertVerifier>>,
}

impl Authorities {
    /// Takes the authorities of a PEM text.
    ///
    /// # Errors
    ///
    /// [`CertificateError`] when one of them cannot be used.
    pub fn from_pem(text: &str) -> Result<Self, CertificateError> {
        let verifiers = ders(text)?.into_iter().map(verifier);
        Ok(Self {
            certificates: Certificate::read_pem(text)?,
            verifiers: verifiers.collect::<Result<_, _>>()?,
        })
    }

    /// What the authorities' own certificates say.
    #[must_use]
    pub fn certificates(&self) -> &[Certificate] {
        &self.certificates
    }

    /// True when the first certificate of `chain` leads to one of the
    /// authorities through the rest, all of them within their dates.
    #[must_use]
    pub fn vouch_for(&self, chain: &[CertificateDer<'_>], at: Timestamp) -> bool {
        let Some((leaf, rest)) = chain.split_first() else {
            return false;
        };
        let seconds = u64::try_from(at.as_second()).unwrap_or_default();
        let moment = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let mut authorities = self.certificates.iter().zip(&self.verifiers);
        authorities.any(|(authority, verifier)| {
            authority.is_current(at) && verifier.verify_client_cert(leaf, rest, moment).is_ok()
        })
    }
}

fn verifier(
    anchor: CertificateDer<'static>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let mut roots = RootCertStore::empty();
    roots
        .add(anchor)
        .map_err(|_| CertificateError::Unreadable)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|_| CertificateError::Unreadable)
}

/// Why a certificate cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CertificateError {
    /// There is no certificate in the text.
    Missing,
    /// It is not what X.509 says.
    Unreadable,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "holds no certificate in PEM",
            Self::Unreadable => "holds a certificate that cannot be read",
        })
    }
}

impl std::error::Error for CertificateError {}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{
        BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd,
    };

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "NL");
        params
            .distinguished_name
            .push(DnType::OrganizationName, "Example, Inc.");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2026, 1, 1);
        params.not_after = date_time_ymd(2027, 1, 1);
        params
    }

    fn authority(name: &str) -> CertifiedIssuer<'static, KeyPair> {
        let mut params = params(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_certificate_says_who_issued_it_to_whom_and_for_how_long() {
        let authority = authority("CA");
        let key = KeyPair::generate().unwrap();
        let made = params("client.example")
            .signed_by(&key, &authority)
            .unwrap();
        let read = Certificate::read(made.der()).unwrap();
        let names = read.names.clone().unwrap();
        assert_eq!(Ok(names.issuer), "CN=CA,O=Example\\, Inc.,C=NL".parse());
        assert_eq!(
            Ok(names.subject),
            "CN=client.example,O=Example\\, Inc.,C=NL".parse()
        );
        assert!(read.is_current(at("2026-01-01T00:00:00Z")));
        assert!(read.is_current(at("2027-01-01T00:00:00Z")));
        assert!(!read.is_current(at("2025-12-31T23:59:59Z")));
        assert!(!read.is_current(at("2027-01-01T00:00:01Z")));
        assert_eq!(Certificate::read_pem(&made.pem()).unwrap(), [read]);
        assert_eq!(
            Certificate::read(b"hush"),
            Err(CertificateError::Unreadable)
        );
        assert_eq!(Certificate::read_pem(""), Err(CertificateError::Missing));
    }

    #[test]
    fn an_authority_vouches_for_its_own_within_the_dates() {
        let (ours, other) = (authority("CA"), authority("CA"));
        let authorities = Authorities::from_pem(&ours.pem()).unwrap();
        let key = KeyPair::generate().unwrap();
        let mine = params("client").signed_by(&key, &ours).unwrap();
        let theirs = params("client").signed_by(&key, &other).unwrap();
        let day = at("2026-06-01T00:00:00Z");
        assert!(authorities.vouch_for(&[mine.der().clone()], day));
        // The same names, another key.
        assert!(!authorities.vouch_for(&[theirs.der().clone()], day));
        assert!(!authorities.vouch_for(&[], day));
        assert!(!authorities.vouch_for(&[mine.der().clone()], at("2027-06-01T00:00:00Z")));
    }
}
