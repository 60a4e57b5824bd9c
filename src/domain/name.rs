//! How a certificate is named: by its fingerprint, or by who issued it to whom.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// SHA-256 of a certificate in DER, written `sha-256:HEX`. Colons between the
/// octets and capitals are read too, as `openssl x509 -fingerprint` prints them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Fingerprint([u8; Self::LEN]);

impl Fingerprint {
    /// Length in bytes.
    pub const LEN: usize = 32;
    const PREFIX: &'static str = "sha-256:";

    /// Takes a digest that was computed elsewhere.
    #[must_use]
    pub fn from_bytes(bytes: [u8; Self::LEN]) -> Self {
        Self(bytes)
    }
}

impl FromStr for Fingerprint {
    type Err = WrongName;

    fn from_str(text: &str) -> Result<Self, WrongName> {
        let wrong = || WrongName("must be sha-256: and 64 hexadecimal digits".to_owned());
        let digits = text.strip_prefix(Self::PREFIX).ok_or_else(wrong)?;
        let digits: Vec<u8> = digits.bytes().filter(|byte| *byte != b':').collect();
        let bytes = bytes_of_hex(&digits).ok_or_else(wrong)?;
        Ok(Self(bytes.try_into().map_err(|_| wrong())?))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(Self::PREFIX)?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn bytes_of_hex(digits: &[u8]) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = digits.chunks(2).map(|pair| match pair {
        [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
        _ => None,
    });
    pairs.collect()
}

/// Types that RFC 4514 and common tools write as words, with their OIDs.
const TYPES: &[(&str, &str)] = &[
    ("cn", "2.5.4.3"),
    ("sn", "2.5.4.4"),
    ("serialnumber", "2.5.4.5"),
    ("c", "2.5.4.6"),
    ("l", "2.5.4.7"),
    ("st", "2.5.4.8"),
    ("street", "2.5.4.9"),
    ("o", "2.5.4.10"),
    ("ou", "2.5.4.11"),
    ("title", "2.5.4.12"),
    ("businesscategory", "2.5.4.15"),
    ("postalcode", "2.5.4.17"),
    ("gn", "2.5.4.42"),
    ("organizationidentifier", "2.5.4.97"),
    ("uid", "0.9.2342.19200300.100.1.1"),
    ("dc", "0.9.2342.19200300.100.1.25"),
    ("emailaddress", "1.2.840.113549.1.9.1"),
];

/// The name of an issuer or subject, in the order of RFC 4514: the most
/// specific part first. Kept in a form in which equal names are equal texts:
/// types as OIDs, values in lower case with single spaces (RFC 4517, section
/// 4.2.11, without its tables of Unicode).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DistinguishedName(Vec<BTreeSet<(String, String)>>);

impl DistinguishedName {
    /// Of types (as dotted OIDs) and values, the most specific part first.
    #[must_use]
    pub fn new<P>(parts: impl IntoIterator<Item = P>) -> Self
    where
        P: IntoIterator<Item = (String, String)>,
    {
        let normal = |(kind, value): (String, String)| (kind, normalised(&value));
        Self(
            parts
                .into_iter()
                .map(|part| part.into_iter().map(normal).collect())
                .collect(),
        )
    }
}

fn normalised(value: &str) -> String {
    let words: Vec<String> = value.split_whitespace().map(str::to_lowercase).collect();
    words.join(" ")
}

impl FromStr for DistinguishedName {
    type Err = WrongName;

    /// Reads the form of RFC 4514, `CN=client.example,O=Example B.V.,C=NL`.
    fn from_str(text: &str) -> Result<Self, WrongName> {
        let mut parts = Vec::new();
        let mut part = Vec::new();
        let mut rest = text;
        loop {
            let (kind, after) = rest.split_once('=').ok_or_else(|| {
                WrongName("must be a name such as CN=client.example,O=Example B.V.,C=NL".into())
            })?;
            let (value, end) = value(after)?;
            part.push((type_oid(kind.trim())?, value));
            let mut left = end.chars();
            match left.next() {
                Some('+') => {}
                Some(_) => parts.push(std::mem::take(&mut part)),
                None => {
                    parts.push(part);
                    return Ok(Self::new(parts));
                }
            }
            rest = left.as_str();
        }
    }
}

fn type_oid(kind: &str) -> Result<String, WrongName> {
    let lower = kind.to_ascii_lowercase();
    if let Some((_, oid)) = TYPES.iter().find(|(word, _)| *word == lower) {
        return Ok((*oid).to_owned());
    }
    let is_oid = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if lower.contains('.') && lower.split('.').all(is_oid) {
        return Ok(lower);
    }
    let known: Vec<&str> = TYPES.iter().map(|(word, _)| *word).collect();
    Err(WrongName(format!(
        "holds an unknown type: expected one of {}, or its OID",
        known.join(", ")
    )))
}

/// The value at the start of `text` without its escapes, and what follows it.
fn value(text: &str) -> Result<(String, &str), WrongName> {
    let mut bytes = Vec::new();
    let mut letters = text.char_indices();
    let mut end = text.len();
    while let Some((at, letter)) = letters.next() {
        match letter {
            ',' | '+' => {
                end = at;
                break;
            }
            '\\' => {
                let rest = text.get(at + 1..).unwrap_or_default();
                let hex = rest.get(..2).and_then(|two| bytes_of_hex(two.as_bytes()));
                let taken = match (hex, rest.chars().next()) {
                    (Some(hex), _) => {
                        bytes.extend(hex);
                        2
                    }
                    (None, Some(next)) => {
                        bytes.extend(next.to_string().bytes());
                        1
                    }
                    (None, None) => return Err(WrongName("ends with a backslash".to_owned())),
                };
                letters.nth(taken - 1);
            }
            letter => bytes.extend(letter.to_string().bytes()),
        }
    }
    let value = String::from_utf8(bytes)
        .map_err(|_| WrongName("holds an escape that is not UTF-8".to_owned()))?;
    if normalised(&value).is_empty() {
        return Err(WrongName("holds a type without a value".to_owned()));
    }
    Ok((value, text.get(end..).unwrap_or_default()))
}

impl fmt::Display for DistinguishedName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let one = |(oid, value): &(String, String)| {
            let word = TYPES.iter().find(|(_, known)| known == oid);
            let kind = word.map_or_else(|| oid.clone(), |(word, _)| word.to_ascii_uppercase());
            format!("{kind}={}", escaped(value))
        };
        let parts = self.0.iter().map(|part| {
            let parts: Vec<String> = part.iter().map(one).collect();
            parts.join("+")
        });
        f.write_str(&parts.collect::<Vec<_>>().join(","))
    }
}

fn escaped(value: &str) -> String {
    let mut text = String::new();
    for (at, letter) in value.char_indices() {
        match letter {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' | '=' => text.extend(['\\', letter]),
            '#' if at == 0 => text.push_str("\\#"),
            '\0' => text.push_str("\\00"),
            letter => text.push(letter),
        }
    }
    text
}

/// Why a text names no certificate. Holds nothing of the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrongName(String);

impl fmt::Display for WrongName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongName {}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(text: &str) -> DistinguishedName {
        text.parse().unwrap()
    }

    #[test]
    fn a_fingerprint_is_read_as_tools_print_it() {
        let plain = format!("sha-256:{}", "0a".repeat(32));
        let printed = format!("sha-256:{}0A", "0A:".repeat(31));
        let fingerprint: Fingerprint = plain.parse().unwrap();
        assert_eq!(printed.parse(), Ok(fingerprint));
        assert_eq!(fingerprint.to_string(), plain);
        for wrong in [
            "0a".repeat(32),
            format!("sha-256:{}", "0a".repeat(31)),
            format!("sha-256:{}", "0g".repeat(32)),
            format!("sha-1:{}", "0a".repeat(32)),
        ] {
            assert!(wrong.parse::<Fingerprint>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn spelling_does_not_tell_names_apart_and_order_does() {
        let written = name("CN=Client  One, O=Example\\, Inc. ,C=NL");
        assert_eq!(
            written,
            name("cn=client one,2.5.4.10=EXAMPLE\\2c inc.,c=nl")
        );
        assert_eq!(name("OU=a+CN=b"), name("CN=b+OU=a"));
        assert_ne!(name("C=NL,CN=a"), name("CN=a,C=NL"));
        assert_ne!(name("CN=a,CN=b"), name("CN=a+CN=b"));
        assert_ne!(name("CN=ab"), name("CN=a b"));
        assert_eq!(name("CN=caf\\c3\\a9"), name("CN=CAFÉ"));
    }

    #[test]
    fn what_is_no_name_is_refused_without_repeating_it() {
        for wrong in [
            "",
            "hush",
            "XX=hush",
            "CN=",
            "CN=a,",
            "CN=hush\\",
            "CN=\\ff",
        ] {
            let refused = wrong.parse::<DistinguishedName>().unwrap_err();
            assert!(!refused.to_string().contains("hush"), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn a_written_name_reads_back_as_itself(
            values in proptest::collection::vec("[^\\s\u{0}-\u{1f}]{1,12}( [a-z,+#=\"]{1,4})?", 1..5)
        ) {
            let parts = values.into_iter().map(|value| [("2.5.4.3".to_owned(), value)]);
            let made = DistinguishedName::new(parts);
            prop_assert_eq!(made.to_string().parse(), Ok(made));
        }
    }
}
