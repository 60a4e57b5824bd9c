//! Nothing newer passes what waits: not on two nodes whose clocks pass midnight
//! one after the other, and not what does not open for a while. What fails by a
//! fault is passed, and told.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sivi_gateway::app::Base;
use sivi_gateway::clock::Clock;
use sivi_gateway::command::apply_file;
use sivi_gateway::directory::DirectoryFile;
use sivi_gateway::domain::PartyId;
use sivi_gateway::receive::{Intake, Refusal};
use sivi_gateway::setup::{Current, Setup};
use sivi_gateway::store::ParkedFilter;
use sivi_gateway::toml_file::TomlFile;
use sqlx::Connection as _;
use support::{Absence, DIRECTORY, absences, header, new_database, reference, settings};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Midnight in Amsterdam, before the day on which the route begins.
const MIDNIGHT: &str = "2026-11-22T23:00:00Z";

/// What takes messages in on a node, without its HTTP.
struct Node {
    base: Base,
    intake: Intake,
    // Keeps the configuration current.
    _replace: watch::Sender<Arc<Setup>>,
}

impl Node {
    /// A node whose clock shows so many seconds before midnight.
    async fn start(folder: &Path, more: &str, before_midnight: u64) -> Self {
        let at =
            MIDNIGHT.parse::<jiff::Timestamp>().unwrap() - Duration::from_secs(before_midnight);
        let base = Base::open(settings(folder, more), Clock::manual(at)).await;
        let base = base.unwrap();
        let directory = DIRECTORY.replacen("from = 2018-01-01", "from = 2026-11-23", 1);
        let file = TomlFile::parse("directory.toml", directory).unwrap();
        let file = DirectoryFile::read(vec![file]).unwrap();
        if base.store.directory_version().await.unwrap() == 0 {
            apply_file(&base, &file).await.unwrap();
        }
        let (replace, current) = Current::new(base.setup().await.unwrap());
        let intake = base.intake(current);
        Self {
            base,
            intake,
            _replace: replace,
        }
    }

    async fn accept(&self, xml: &str) {
        let adp = PartyId::parse("adp").unwrap();
        if let Err((refusal, _)) = self.intake.accept(&adp, xml.as_bytes()).await {
            match refusal {
                Refusal::Invalid(findings)
                | Refusal::Busy(findings)
                | Refusal::Forbidden(findings)
                | Refusal::Malformed(findings) => panic!("refused: {findings:?}"),
                Refusal::Internal(cause) => panic!("refused: {cause}"),
                Refusal::ReferenceReused | Refusal::Stale | Refusal::OtherDay => panic!("refused"),
            }
        }
    }

    /// Moves the clock, and waits until what waits was tried.
    async fn pass(&self, seconds: u64) {
        self.base.clock.advance(Duration::from_secs(seconds));
        self.intake.catch_up.follow(self.intake.days());
        let started = Instant::now();
        while !self.intake.catch_up.has_settled() {
            assert!(started.elapsed() < Duration::from_secs(20), "never tried");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn parked(&self) -> usize {
        let filter = ParkedFilter::default();
        let page = self.base.store.parked_page(&filter, 10).await;
        page.unwrap().parts.len()
    }

    /// The persons and numbers of what the receiver gets, in order.
    async fn delivered(&self) -> Vec<String> {
        let arbo = PartyId::parse("arbo-noord").unwrap();
        let ttl = Duration::from_mins(1);
        let leased = self.base.store.lease(&arbo, false, 10, ttl).await.unwrap();
        let shown = |xml: &str| {
            let of = |tag: &str| {
                let (_, rest) = xml.split_once(&format!("<{tag}>")).unwrap();
                rest.split_once('<').unwrap().0.to_owned()
            };
            format!("{} {}", of("IdWrknmr"), of("VrzmgvlVnrMld"))
        };
        let xml = leased
            .iter()
            .map(|one| shown(std::str::from_utf8(&one.xml).unwrap()));
        xml.collect()
    }
}

/// A report of two persons, which a report of one of them takes nowhere.
fn of_two(first: &str, second: &str) -> String {
    let header = header("00100", "00006", "ADP", "ARBONOORD", &reference(), "N");
    let both =
        [first, second].map(|person| Absence::of(person, &format!("VG-{person}")).employee());
    absences(&header, &[(("105", "6431"), both.to_vec())])
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_slow_clock_parks_after_midnight_is_passed_by_nothing_newer() {
    let folder = tempfile::tempdir().unwrap();
    let more = format!(
        "database.url = \"{}\"\nkeys.ring = \"{}\"\n",
        new_database().await,
        new_database().await
    );
    let fast = Node::start(folder.path(), &more, 10).await;
    let slow = Node::start(folder.path(), &more, 100).await;
    let stop = CancellationToken::new();
    let keeping_up = tokio::spawn(fast.intake.clone().keep_up(stop.clone()));

    fast.pass(20).await;
    // It is the day before there, without a route.
    slow.accept(&of_two("W-1", "W-2")).await;
    slow.accept(&of_two("W-3", "W-4")).await;
    assert_eq!(fast.parked().await, 2);
    let newer = Absence {
        number: 2,
        ..Absence::of("W-1", "VG-W-1")
    };
    fast.accept(&newer.xml()).await;
    assert_eq!(fast.delivered().await, ["W-1 1", "W-1 2"]);
    assert_eq!(fast.parked().await, 1);

    // Nobody reports on the others, and the slow node is gone. What was leased
    // comes again.
    fast.pass(600).await;
    assert_eq!(fast.parked().await, 0);
    assert_eq!(fast.delivered().await, ["W-1 1", "W-1 2", "W-3 1"]);
    stop.cancel();
    keeping_up.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_for_a_while_is_passed_by_nothing_newer() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), "", 10).await;
    let stop = CancellationToken::new();
    let keeping_up = tokio::spawn(node.intake.clone().keep_up(stop.clone()));
    let report = |number| Absence {
        number,
        ..Absence::of("W-1", "VG-1")
    };
    node.accept(&report(1).xml()).await;
    let url = format!("sqlite:{}", folder.path().join("gateway.db").display());
    let mut raw = sqlx::SqliteConnection::connect(&url).await.unwrap();
    for statement in [
        "CREATE TABLE kept AS SELECT sealed FROM parked",
        "UPDATE parked SET sealed = x'00'",
    ] {
        sqlx::query(statement).execute(&mut raw).await.unwrap();
    }
    // The walk finds nothing that opens.
    node.pass(20).await;
    let back = "UPDATE parked SET sealed = (SELECT sealed FROM kept)";
    sqlx::query(back).execute(&mut raw).await.unwrap();
    node.accept(&report(2).xml()).await;
    assert_eq!(node.delivered().await, ["W-1 1", "W-1 2"]);
    stop.cancel();
    keeping_up.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_by_a_fault_is_told_and_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let node = Node::start(folder.path(), "", 0).await;
    let stop = CancellationToken::new();
    let keeping_up = tokio::spawn(node.intake.clone().keep_up(stop.clone()));
    node.accept(&Absence::of("W-1", "VG-1").xml()).await;
    // Corrections of cases that nobody knows.
    for person in ["W-1", "W-2"] {
        let correction = Absence {
            number: 2,
            action: "03",
            ..Absence::of(person, "VG-other")
        };
        node.accept(&correction.xml()).await;
    }
    assert_eq!(node.parked().await, 2);
    assert_eq!(node.intake.catch_up.passed_over().len(), 0);

    let url = format!("sqlite:{}", folder.path().join("gateway.db").display());
    let mut raw = sqlx::SqliteConnection::connect(&url).await.unwrap();
    let damage = "UPDATE ledger SET sealed = SUBSTR(sealed, 1, 20)";
    sqlx::query(damage).execute(&mut raw).await.unwrap();
    node.intake.catch_up.change(|| {});
    node.pass(0).await;
    let passed_over = node.intake.catch_up.passed_over();
    let ids: Vec<String> = passed_over.into_keys().collect();
    assert_eq!(ids.len(), 1);
    let parked = node.base.store.still_parked(&ids).await.unwrap();
    assert_eq!(parked.len(), 1);

    // The fault is mended and its case reported: it goes, and is forgotten.
    let mend = "DELETE FROM ledger";
    sqlx::query(mend).execute(&mut raw).await.unwrap();
    node.accept(&Absence::of("W-1", "VG-other").xml()).await;
    assert_eq!(node.parked().await, 1);
    assert_eq!(node.intake.catch_up.passed_over().len(), 0);
    stop.cancel();
    keeping_up.await.unwrap();
}
