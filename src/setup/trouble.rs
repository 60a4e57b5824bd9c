//! What of a stored configuration cannot be used on this node.

use std::collections::BTreeMap;
use std::fmt;

use super::Missing;
use crate::domain::PartyId;

/// Why not all of the stored configuration is in use. It is over as soon as a
/// later look finds everything.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The mapping or edition of these parties is not on this node: none of
    /// their messages is taken. Everybody else's are.
    Missing(BTreeMap<PartyId, Missing>),
    /// The stored directory cannot be read: no message is taken. The directory
    /// before it serves receivers, as far as the newer one takes nothing away.
    Directory(String),
}

impl Trouble {
    /// What it means, for whoever may not know how things are called here.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Missing(_) => "a mapping or edition that the directory names is not on this node",
            Self::Directory(_) => "the stored directory cannot be read by this node",
        }
    }

    /// How many parties cannot send; every one of `parties` when nobody can.
    #[must_use]
    pub fn silenced(&self, parties: usize) -> u64 {
        let count = match self {
            Self::Missing(missing) => missing.len(),
            Self::Directory(_) => parties,
        };
        count as u64
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(missing) => {
                for (at, (party, what)) in missing.iter().enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    write!(f, "{comma}{what} for party {party}")?;
                }
                Ok(())
            }
            Self::Directory(cause) => write!(f, "stored directory: {cause}"),
        }
    }
}
