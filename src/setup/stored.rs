//! The configuration as the store has it, read at one moment.

use crate::directory::{Delivery, Directory, Party, RecordKind};
use crate::store::{ApiKeys, Error, Record, Store};

/// Records, API keys and their versions.
pub(super) struct Stored {
    /// Of records and keys together; at most as new as they are.
    pub(super) version: i64,
    pub(super) directory_version: i64,
    pub(super) records: Vec<Record>,
    pub(super) api_keys: ApiKeys,
}

impl Stored {
    /// Reads all of it.
    ///
    /// # Errors
    ///
    /// The store's.
    pub(super) async fn read(store: &Store) -> Result<Self, Error> {
        // First: a change that comes in between is seen by the next look.
        let version = store.changes_version().await?;
        let directory = store.directory().await?;
        Ok(Self {
            version,
            directory_version: directory.version,
            records: directory.records,
            api_keys: store.api_keys().await?,
        })
    }

    /// The directory.
    ///
    /// # Errors
    ///
    /// The first record that cannot be read, and why.
    pub(super) fn directory(&self) -> Result<Directory, String> {
        let records = self.records.iter().map(parts);
        Directory::from_records(records).map_err(|cause| cause.to_string())
    }

    /// `old` with the parties as far as these records can be read: who is gone
    /// is gone. A party whose record cannot be read keeps its place, but what
    /// may have been taken from it is: its certificates, and where it is
    /// pushed to.
    pub(super) fn narrow(&self, old: &Directory) -> Directory {
        let of_parties = self.records.iter().filter(|record| is_party(record));
        let parties = of_parties.filter_map(|record| {
            let read = Directory::from_records([parts(record)]);
            let read = read.ok().and_then(|one| one.parties.into_values().next());
            read.or_else(|| {
                let known = old.parties.values();
                let known = known
                    .into_iter()
                    .find(|party| party.id.as_str() == record.id)?;
                Some(Party {
                    certificates: Vec::new(),
                    delivery: Delivery::Poll,
                    ..known.clone()
                })
            })
        });
        Directory {
            parties: parties.map(|party| (party.id.clone(), party)).collect(),
            ..old.clone()
        }
    }
}

fn is_party(record: &Record) -> bool {
    record.kind == RecordKind::Party.as_str()
}

fn parts(record: &Record) -> (&str, &str, &str) {
    (&record.kind, &record.id, &record.body)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARTIES: &str = r#"
        [[party]]
        id = "stays"
        name = "Stays"
        kind = "payroll"
        sender_ids = ["S"]
        certificates = [{ fingerprint = "PIN1" }, { fingerprint = "PIN2" }]

        [[party]]
        id = "goes"
        name = "Goes"
        kind = "payroll"
        sender_ids = ["G"]

        [[party]]
        id = "newer"
        name = "Newer"
        kind = "arbodienst"
        receiver_id = "N"
        certificates = [{ fingerprint = "PIN3" }]
        delivery = { mode = "push", url = "https://push.example.nl/", secret = "env:S" }
    "#;

    fn pin(digit: &str) -> String {
        format!("sha-256:{}", digit.repeat(64))
    }

    fn directory() -> Directory {
        let text = ["1", "2", "3"].iter().fold(PARTIES.to_owned(), |text, n| {
            text.replace(&format!("PIN{n}"), &pin(n))
        });
        let file = crate::toml_file::TomlFile::parse("directory.toml", text).unwrap();
        let file = crate::directory::DirectoryFile::read(vec![file]).unwrap();
        let known = crate::directory::Known {
            mappings: ["default".to_owned()].into(),
            editions: ["2017".to_owned()].into(),
        };
        file.onto(&Directory::default(), false, &known)
            .unwrap()
            .merged
    }

    #[test]
    fn a_directory_that_cannot_be_read_gives_nobody_more_than_it_may() {
        let old = directory();
        let records = old.to_records().into_iter();
        let records = records.filter(|(_, id, _)| id != "goes").map(|record| {
            let (kind, id, body) = record;
            let body = match id.as_str() {
                // A pin is withdrawn; the other record was written by a newer
                // version.
                "stays" => body.replace(&format!(r#"{{"fingerprint":"{}"}},"#, pin("1")), ""),
                _ => body.replacen('{', r#"{"colour":"red","#, 1),
            };
            Record {
                kind: kind.to_owned(),
                id,
                body,
            }
        });
        let stored = Stored {
            version: 2,
            directory_version: 2,
            records: records.collect(),
            api_keys: ApiKeys::default(),
        };
        assert!(stored.directory().unwrap_err().contains("colour"));
        let left = stored.narrow(&old).parties;
        let ids: Vec<&str> = left.keys().map(crate::domain::PartyId::as_str).collect();
        assert_eq!(ids, ["newer", "stays"]);
        let (newer, stays) = (
            &left.values().next().unwrap(),
            left.values().last().unwrap(),
        );
        assert_eq!(stays.certificates.len(), 1);
        assert!(newer.certificates.is_empty());
        assert_eq!(newer.delivery, Delivery::Poll);
        assert_eq!(newer.receiver_id.as_deref(), Some("N"));
    }
}
