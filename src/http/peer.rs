//! The certificate that a client showed in the handshake.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use crate::certificate::Certificate;

/// The certificate of a connection, in the extensions of its requests. The
/// handshake proved that the client holds its key, and nothing else.
#[derive(Clone, Debug)]
pub struct PeerCertificate(Arc<Peer>);

#[derive(Debug)]
struct Peer {
    chain: Vec<CertificateDer<'static>>,
    leaf: Option<Certificate>,
}

impl PeerCertificate {
    pub(super) fn of(chain: &[CertificateDer<'_>]) -> Option<Self> {
        let leaf = chain.first()?;
        Some(Self(Arc::new(Peer {
            leaf: Certificate::read(leaf).ok(),
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
        })))
    }

    /// What it says; `None` when it cannot be read.
    #[must_use]
    pub fn certificate(&self) -> Option<&Certificate> {
        self.0.leaf.as_ref()
    }

    /// The certificate and those that the client sent along.
    #[must_use]
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.0.chain
    }
}
