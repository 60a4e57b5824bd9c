//! Who exchanges messages: parties, tenants and domains.

use std::{fmt, str::FromStr};

/// A word of a configuration file that is not one of the known ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UnknownWord {
    /// What the word should have named, such as `domain`.
    pub what: &'static str,
    /// The words that are known.
    pub known: &'static [&'static str],
}

impl fmt::Display for UnknownWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "unknown {}: expected one of {}",
            self.what,
            self.known.join(", ")
        )
    }
}

impl std::error::Error for UnknownWord {}

macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($what:literal) { $($(#[$vdoc:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }

        impl $name {
            /// Every value, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word as configuration files and answers write it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }
        }

        impl FromStr for $name {
            type Err = UnknownWord;

            fn from_str(text: &str) -> Result<Self, UnknownWord> {
                match text {
                    $($word => Ok(Self::$variant),)+
                    _ => Err(UnknownWord { what: $what, known: &[$($word),+] }),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// What a receiver is in privacy law. Decides what may reach it.
    Domain ("domain") {
        /// The employer and who works for it.
        Werkgever = "werkgever",
        /// The occupational health service, its non-medical side.
        Arbodienst = "arbodienst",
        /// The company doctor, who may see medical data.
        Bedrijfsarts = "bedrijfsarts",
        /// The absence insurer.
        Verzekeraar = "verzekeraar",
    }
}

words! {
    /// What kind of organisation a party is.
    PartyKind ("kind") {
        /// A payroll provider, which reports for employers.
        Payroll = "payroll",
        /// An occupational health service.
        Arbodienst = "arbodienst",
        /// An insurer.
        Verzekeraar = "verzekeraar",
        /// A company doctor's practice.
        Bedrijfsarts = "bedrijfsarts",
        /// An employer that connects by itself.
        Werkgever = "werkgever",
    }
}

impl PartyKind {
    /// True for parties on the employer's side of the chain.
    #[must_use]
    pub fn speaks_for_employers(self) -> bool {
        matches!(self, Self::Payroll | Self::Werkgever)
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(String);

        impl $name {
            /// Takes an id of 1 to 64 characters `a-z`, `0-9`, `-`.
            ///
            /// # Errors
            ///
            /// [`UnknownWord`] for anything else.
            pub fn parse(text: &str) -> Result<Self, UnknownWord> {
                let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
                if text.is_empty() || text.len() > 64 || !text.bytes().all(allowed) {
                    return Err(UnknownWord { what: "id", known: &["1 to 64 of a-z 0-9 -"] });
                }
                Ok(Self(text.to_owned()))
            }

            /// The id as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// Names a party: an organisation that connects.
    PartyId
}

id! {
    /// Names a tenant: an employer whose messages are exchanged.
    TenantId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_domain_reads_back_as_itself() {
        for domain in Domain::ALL {
            assert_eq!(domain.as_str().parse::<Domain>(), Ok(*domain));
        }
    }

    #[test]
    fn an_id_has_no_capitals_spaces_or_slashes() {
        for wrong in ["", "Adp", "a b", "a/b", "é"] {
            assert!(PartyId::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(
            TenantId::parse("bakkerij-2").unwrap().as_str(),
            "bakkerij-2"
        );
    }
}
