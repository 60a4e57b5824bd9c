//! Where a push may connect to: public addresses, and private ones only of
//! hosts that the operator allowed by name.
//!
//! A name is resolved here and the connection goes to the addresses that were
//! checked, so that a second answer of the name server changes nothing (DNS
//! rebinding). An address that stands in the url itself is not resolved and is
//! checked by [`Guard::check_literal`].

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Checks where connections go.
#[derive(Clone, Debug)]
pub(super) struct Guard {
    allowed: Arc<BTreeSet<String>>,
}

impl Guard {
    /// `allow_private` names the hosts whose private addresses are fine.
    pub(super) fn new(allow_private: &[String]) -> Self {
        let allowed = allow_private.iter().map(|host| plain(host)).collect();
        Self {
            allowed: Arc::new(allowed),
        }
    }

    /// Refuses a url whose host is a private address.
    pub(super) fn check_literal(&self, url: &Url) -> Result<(), PrivateAddress> {
        let host = url.host_str().unwrap_or_default();
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        match literal.parse::<IpAddr>() {
            Ok(address) if !self.lets(literal, address) => Err(PrivateAddress),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    fn lets(&self, host: &str, address: IpAddr) -> bool {
        is_public(address) || self.allowed.contains(&plain(host))
    }
}

/// A host as names are compared: lower case, without the dot of the root.
fn plain(host: &str) -> String {
    host.trim_end_matches('.').to_ascii_lowercase()
}

impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let let_through: Vec<SocketAddr> = found
                .filter(|address| guard.lets(name.as_str(), address.ip()))
                .collect();
            if let_through.is_empty() {
                return Err(PrivateAddress.into());
            }
            Ok(Box::new(let_through.into_iter()) as Addrs)
        })
    }
}

/// Only private addresses were found for a host that is not allowed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrivateAddress;

impl fmt::Display for PrivateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the host has a private address: name it in allow_private if that is right")
    }
}

impl std::error::Error for PrivateAddress {}

/// True for an address that anybody on the internet could have.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

/// Networks with a purpose of their own (IANA IPv4 special-purpose registry,
/// RFC 6890), multicast and what is reserved. Clouds answer questions about
/// the machine in 169.254.0.0/16 and 100.64.0.0/10.
const SPECIAL_V4: [([u8; 4], u32); 16] = [
    ([0, 0, 0, 0], 8),
    ([10, 0, 0, 0], 8),
    ([100, 64, 0, 0], 10),
    ([127, 0, 0, 0], 8),
    ([168, 63, 129, 16], 32), // Azure's own services
    ([169, 254, 0, 0], 16),
    ([172, 16, 0, 0], 12),
    ([192, 0, 0, 0], 24),
    ([192, 0, 2, 0], 24),
    ([192, 88, 99, 0], 24),
    ([192, 168, 0, 0], 16),
    ([198, 18, 0, 0], 15),
    ([198, 51, 100, 0], 24),
    ([203, 0, 113, 0], 24),
    ([224, 0, 0, 0], 4),
    ([240, 0, 0, 0], 4),
];

fn is_public_v4(address: Ipv4Addr) -> bool {
    let bits = address.to_bits();
    !SPECIAL_V4.iter().any(|(network, length)| {
        let network = Ipv4Addr::from(*network).to_bits();
        (bits ^ network).leading_zeros() >= *length
    })
}

/// Protocol assignments with Teredo, documentation, 6to4, documentation (IANA
/// IPv6 special-purpose registry).
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];
/// Global unicast, `2000::/3`: all else is for special use.
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// An IPv4 address stands in the rest: mapped (RFC 4291), translated (RFC 6052).
const HOLDS_V4: [(Ipv6Addr, u32); 2] = [
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96),
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96),
];

fn is_public_v6(address: Ipv6Addr) -> bool {
    let bits = address.to_bits();
    let is_in =
        |(network, length): &(Ipv6Addr, u32)| (bits ^ network.to_bits()).leading_zeros() >= *length;
    if HOLDS_V4.iter().any(is_in) {
        let [.., w, x, y, z] = address.octets();
        return is_public_v4(Ipv4Addr::new(w, x, y, z));
    }
    is_in(&GLOBAL_V6) && !SPECIAL_V6.iter().any(is_in)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_of_every_kind_are_refused() {
        for private in [
            "0.0.0.0",
            "10.0.0.1",
            "10.255.255.255",
            "100.64.0.1",
            "100.100.100.200",
            "127.0.0.1",
            "127.8.8.8",
            "168.63.129.16",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.192",
            "192.168.1.1",
            "198.19.0.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.1.2.3",
            "::ffff:169.254.169.254",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn public_addresses_are_let_through() {
        for public in [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "223.255.255.255",
            "::ffff:1.1.1.1",
            "64:ff9b::1.1.1.1",
            "2001:67c::1",
            "2a00:1450::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn a_private_address_in_the_url_needs_its_name_on_the_list() {
        let check = |allowed: &[&str], url: &str| {
            let allowed: Vec<String> = allowed.iter().map(|&host| host.to_owned()).collect();
            Guard::new(&allowed).check_literal(&Url::parse(url).unwrap())
        };
        for url in [
            "https://127.0.0.1/in",
            "https://[::1]:8443/in",
            "https://[::ffff:10.0.0.1]/",
            // Other spellings of the same address.
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
        ] {
            assert_eq!(check(&[], url), Err(PrivateAddress), "{url}");
        }
        assert_eq!(check(&["127.0.0.1"], "https://127.0.0.1/in"), Ok(()));
        assert_eq!(check(&["::1"], "https://[::1]/in"), Ok(()));
        assert_eq!(
            check(&["127.0.0.1"], "https://127.0.0.2/"),
            Err(PrivateAddress)
        );
        assert_eq!(check(&[], "https://1.1.1.1/"), Ok(()));
        assert_eq!(check(&[], "https://arbo.example/"), Ok(()));
    }

    #[tokio::test]
    async fn a_name_is_resolved_and_its_private_addresses_dropped() {
        let resolve = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|&host| host.to_owned()).collect();
            Guard::new(&allowed).resolve("localhost".parse().unwrap())
        };
        let refused = resolve(&[]).await.err().unwrap();
        assert!(refused.downcast_ref::<PrivateAddress>().is_some());
        let addresses = resolve(&["LocalHost."]).await.ok().unwrap();
        assert!(
            addresses
                .into_iter()
                .all(|address| address.ip().is_loopback())
        );
    }
}
