//! Addresses that the daemon sends to, as the client will understand them.

use url::{Host, Url};

/// What is wrong with an address that [`outgoing`] does not take.
pub(super) const WRONG: &str =
    "must be https://…, or http:// on 127.0.0.1 or localhost, without user, password or fragment";

/// An address that is spoken to over TLS, or in the clear on this machine only.
/// `None` for any other: what it says before its host is not its host.
pub(super) fn outgoing(text: &str) -> Option<Url> {
    let url = Url::parse(text).ok()?;
    let is_here = match url.host()? {
        Host::Domain(name) => name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    };
    let is_private = url.scheme() == "https" || (url.scheme() == "http" && is_here);
    let is_plain = url.username().is_empty() && url.password().is_none();
    (is_private && is_plain && url.fragment().is_none()).then_some(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_decides_whether_it_may_be_in_the_clear() {
        for right in [
            "https://alerts.example/hook?token=1",
            "https://192.0.2.1:8443/",
            "HTTPS://alerts.example",
            "http://127.0.0.1:4318",
            "http://localhost:4318/base",
            "http://LocalHost/",
            "http://[::1]:4318/",
        ] {
            assert!(outgoing(right).is_some(), "{right}");
        }
        for wrong in [
            "",
            "alerts.example",
            "https://",
            "https://:443/",
            "https://a b/",
            "ftp://localhost/",
            "http://alerts.example/",
            "http://127.0.0.1:80@192.0.2.1/x",
            "http://localhost@192.0.2.1/x",
            "http://127.0.0.1.example/x",
            "http://192.0.2.1#@127.0.0.1/",
            "https://user@alerts.example/",
            "https://:secret@alerts.example/",
            "https://alerts.example/#part",
        ] {
            assert!(outgoing(wrong).is_none(), "{wrong}");
        }
    }
}
