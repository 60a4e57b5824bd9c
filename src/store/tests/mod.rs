//! Tests of the store. Each body of `on_both!` runs on every database.

mod accepting;
mod backup;
mod copy;
mod decisions;
mod faults;
mod inbox;
mod letters;
mod model;
mod neighbours;
mod nodes;
mod push;
mod records;
mod reseal;
mod retire;
mod ring;
mod schemas;
mod speed;
mod unopened;
mod upgrade;
mod watching;

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::date;
use tempfile::TempDir;

use super::backend::{Connection, query};
use super::*;
use crate::domain::{Code, Domain, Finding, KeyedHash, PartyId, TenantId};
use crate::policy::testing::{parked, release};
use crate::policy::{CaseEntry, CaseKey, CaseState, LedgerChange, Release, Withheld};
use crate::seal::{Keys, Master, SECRET_LEN};

/// Runs a test body on each database.
macro_rules! on_both {
    ($($(#[doc = $doc:literal])* async fn $name:ident($place:ident: Place) $body:block)+) => { $(
        mod $name {
            use super::*;

            $(#[doc = $doc])*
            async fn body($place: super::super::TestPlace) $body

            #[tokio::test]
            async fn sqlite() {
                body(super::super::TestPlace::sqlite()).await;
            }

            #[tokio::test]
            async fn postgres() {
                body(super::super::TestPlace::postgres().await).await;
            }
        }
    )+ };
}
pub(super) use on_both;

/// The master key of a test, if it says nothing else.
pub(super) const MASTER: u8 = 3;

/// A database of its own.
pub(super) struct TestPlace {
    /// Goes with the test; empty where a server holds the database.
    pub(super) folder: TempDir,
    pub(super) clock: Clock,
    url: DatabaseUrl,
    pub(super) ring_url: DatabaseUrl,
}

impl TestPlace {
    pub(super) fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            url: DatabaseUrl::sqlite(folder.path().join("data/gateway.db")),
            ring_url: DatabaseUrl::sqlite(folder.path().join("data/ring.db")),
            folder,
            clock: Clock::manual(start()),
        }
    }

    /// A new database of the server that `.ci/test` starts.
    pub(super) async fn postgres() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            clock: Clock::manual(start()),
            url: new_database().await.parse().unwrap(),
            ring_url: new_database().await.parse().unwrap(),
        }
    }

    pub(super) fn url(&self) -> DatabaseUrl {
        self.url.clone()
    }

    pub(super) async fn open(&self) -> Store {
        self.try_open(MASTER).await.unwrap()
    }

    /// Opens with another master key for each `number`.
    pub(super) async fn try_open(&self, number: u8) -> Result<Store, Error> {
        Store::open(&self.url(), &self.ring(number), self.clock.clone()).await
    }

    pub(super) fn ring(&self, number: u8) -> RingPlace {
        RingPlace {
            url: self.ring_url.clone(),
            masters: Master::from_secret([number; SECRET_LEN]).into(),
        }
    }

    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }
}

/// Begins a new store although the ring of the place was in use.
pub(super) async fn begin_anew_at(place: &TestPlace, number: u8) -> Result<bool, Error> {
    begin_anew(&place.url(), &place.ring(number), place.clock.clone()).await
}

/// The address of a new database.
pub(super) async fn new_database() -> String {
    use sqlx::{AssertSqlSafe, Connection as _};

    let server = std::env::var("SIVI_TEST_POSTGRES").expect(
        "these tests need PostgreSQL: run .ci/test, or start a server with \
         `.ci/postgres start FOLDER` and set SIVI_TEST_POSTGRES to what it prints",
    );
    let name = format!("sivi_{}", crate::clock::new_id());
    let mut link = sqlx::PgConnection::connect(&format!("{server}/postgres"))
        .await
        .unwrap();
    sqlx::query(AssertSqlSafe(format!("CREATE DATABASE {name}")))
        .execute(&mut link)
        .await
        .unwrap();
    format!("{server}/{name}")
}

pub(super) fn start() -> Timestamp {
    "2018-03-01T09:00:00Z".parse().unwrap()
}

pub(super) fn keys() -> Keys {
    Keys::from_secret([MASTER; SECRET_LEN])
}

pub(super) fn hash(text: &str) -> KeyedHash {
    static KEYS: LazyLock<Keys> = LazyLock::new(keys);
    KEYS.keyed_hash("test", &[text])
}

pub(super) fn party(id: &str) -> PartyId {
    PartyId::parse(id).unwrap()
}

pub(super) const SECONDS: fn(u64) -> Duration = Duration::from_secs;

/// A message of party `adp` with nothing in it.
pub(super) fn acceptance(id: &str) -> Acceptance {
    Acceptance {
        directory_version: 0,
        decided_on: date(2018, 3, 1),
        message: Message {
            id: id.to_owned(),
            party: party("adp"),
            test: false,
            berrefnr: hash(id),
            body: hash(&format!("body of {id}")),
            received_at: start(),
            message_type: "Verzuimmeldingen".to_owned(),
            edition: "2017".to_owned(),
            reference: format!("REF-{id}"),
            findings: Vec::new(),
            routed: vec![Domain::Arbodienst],
            shown: true,
        },
        releases: Vec::new(),
        ledger: Vec::new(),
        window_days: 35,
        remember: Vec::new(),
        parked: Vec::new(),
        unparked: Vec::new(),
        withheld: Vec::new(),
        answer: None,
    }
}

/// A change of the ledger of a route of tenant `bakkerij`.
pub(super) fn known(change: LedgerChange) -> (TenantId, LedgerChange) {
    (TenantId::parse("bakkerij").unwrap(), change)
}

/// A key of party `adp` that holds for an hour.
pub(super) fn api_key(place: &TestPlace) -> ApiKey {
    ApiKey {
        id: "k1".into(),
        party: party("adp"),
        hash: hash("secret"),
        created_at: place.now(),
        expires_at: Some(place.now() + SECONDS(3600)),
        revoked_at: None,
        last_used_at: None,
    }
}

/// A release to party `arbo` about cases named by single letters.
pub(super) fn to_arbo(id: &str, cases: &str) -> Release {
    let cases: Vec<KeyedHash> = cases.chars().map(|c| hash(&c.to_string())).collect();
    release(id, "arbo", false, &cases, format!("<r>{id}</r>").as_bytes())
}

pub(super) fn case_key(route: &str, person: &str, case: &str) -> CaseKey {
    CaseKey {
        route: hash(route),
        person: hash(person),
        employment: hash("employment"),
        case: hash(case),
    }
}

pub(super) fn case_entry(key: CaseKey, version: i64, number: u32) -> CaseEntry {
    CaseEntry {
        key,
        birth: hash("birth"),
        state: CaseState {
            first_day: date(2018, 2, 1),
            recovered_on: None,
            closed_on: None,
            withdrawn: false,
            last_number: number,
            last_content: hash("content"),
            last_message_on: date(2018, 3, 1),
        },
        version,
    }
}

/// Accepts a message with these releases.
pub(super) async fn accept_releases(store: &Store, id: &str, releases: Vec<Release>) {
    let mut acceptance = acceptance(id);
    acceptance.releases = releases;
    store.accept(acceptance).await.unwrap();
}

/// Destroys the keys of tenant `bakkerij` that were replaced, with what they
/// sealed.
pub(super) async fn destroy_replaced(store: &Store) -> Destroyed {
    let tenant = TenantId::parse("bakkerij").unwrap();
    let replaced = store.replaced_keys(&tenant).await.unwrap();
    store.destroy_replaced_keys(&replaced).await.unwrap()
}

/// Leases for party `arbo` and returns the ids.
pub(super) async fn lease_ids(store: &Store, limit: usize) -> Vec<String> {
    let arbo = party("arbo");
    let leased = store.lease(&arbo, false, limit, SECONDS(60)).await;
    let leased = leased.unwrap();
    leased.into_iter().map(|one| one.id).collect()
}

/// Acknowledges by id alone.
pub(super) async fn ack_ids(store: &Store, ids: &[&str]) -> Acked {
    let items: Vec<_> = ids.iter().map(|id| ((*id).to_owned(), None)).collect();
    store.ack(&party("arbo"), &items).await.unwrap()
}
