//! The daemon: opens what it needs, starts its tasks, stops them all.

mod live;
mod own_certificate;
mod tasks;
mod warnings;

pub use live::{Reloaded, Reloader};

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use rustls::ServerConfig;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::access::{Allowances, Door, Memory, SeenCertificates};
use crate::admin::{self, Admin, Desk, States, Token};
use crate::clock::Clock;
use crate::config::{Database, Settings, Source};
use crate::deliver::push::{Faults, Pusher};
use crate::deliver::{self, Answers, Counter};
use crate::directory::{Delivery, Party};
use crate::http::{self, Limits, Server, TlsError};
use crate::receive::{self, CatchUp, Days, Intake, Reception};
use crate::seal::{KeyError, Keys, Master, Masters};
use crate::setup::{Current, Foundation, Setup, SetupError};
use crate::store::{self, DatabaseUrl, RingPlace, Store, UnknownDatabase};
use crate::watch::{Board, CourierError, Watch, check_webhook};
use live::{Live, warn_of_parties_without_authority};
use own_certificate::OwnCertificate;
use tasks::Tasks;
use warnings::Warnings;

/// What every command that needs the store works with.
pub struct Base {
    /// Schemas, mappings, policy, settings.
    pub foundation: Foundation,
    /// The keys of the installation.
    pub keys: Keys,
    /// The store.
    pub store: Store,
    /// The time.
    pub clock: Clock,
}

impl Base {
    /// Opens data folder, keys and database; makes what is missing.
    ///
    /// # Errors
    ///
    /// [`StartError`], one variant per resource that could not be had.
    pub async fn open(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        let foundation = Foundation::load(settings).map_err(StartError::Setup)?;
        let settings = &foundation.settings;
        std::fs::create_dir_all(&settings.data_dir).map_err(|cause| {
            StartError::DataFolder(settings.data_dir.display().to_string(), cause)
        })?;
        let ring = ring_place(settings)?;
        let url = database_url(&settings.database)?;
        let store = Store::open(&url, &ring, clock.clone())
            .await
            .map_err(StartError::Store)?;
        Ok(Self {
            foundation,
            keys: store.keys().clone(),
            store,
            clock,
        })
    }

    /// The configuration as it stands in the store.
    ///
    /// # Errors
    ///
    /// [`StartError::Setup`].
    pub async fn setup(&self) -> Result<Setup, StartError> {
        Setup::read(&self.foundation, &self.store, &self.keys)
            .await
            .map_err(StartError::Setup)
    }

    /// Takes messages in, with the configuration in `current`.
    #[must_use]
    pub fn intake(&self, current: Current) -> Intake {
        Intake {
            store: self.store.clone(),
            clock: self.clock.clone(),
            current,
            catch_up: CatchUp::new(Days::at(self.clock.now(), self.store.is_shared())),
            look_again: Arc::new(Notify::new()),
        }
    }
}

/// Where a database is.
///
/// # Errors
///
/// [`StartError::Database`].
pub fn database_url(database: &Database) -> Result<DatabaseUrl, StartError> {
    match database {
        Database::Sqlite(path) => Ok(DatabaseUrl::sqlite(path)),
        Database::Postgres(url) => url.expose().parse().map_err(StartError::Database),
    }
}

/// Where the key ring is, and what opens it.
///
/// # Errors
///
/// [`StartError::Keys`] or [`StartError::Database`].
pub fn ring_place(settings: &Settings) -> Result<RingPlace, StartError> {
    Ok(RingPlace {
        url: database_url(&settings.ring)?,
        masters: masters(settings)?,
    })
}

/// The master key, made when its file is not there yet, and the one before it.
fn masters(settings: &Settings) -> Result<Masters, StartError> {
    let current = match &settings.data_key {
        Source::File(path) => Master::open_or_create(path),
        Source::Text(secret) => Master::from_text(secret.expose()),
    };
    let previous = settings.previous_key.as_ref().map(|source| match source {
        Source::File(path) => Master::open(path),
        Source::Text(secret) => Master::from_text(secret.expose()),
    });
    Ok(Masters {
        current: current.map_err(StartError::Keys)?,
        previous: previous.transpose().map_err(StartError::Keys)?,
    })
}

/// The key ring of an installation that has messages already; makes no key.
///
/// # Errors
///
/// [`StartError::Keys`], also when the file of the master key is not there.
pub fn ring_in_use(settings: &Settings) -> Result<RingPlace, StartError> {
    if let Source::File(path) = &settings.data_key {
        std::fs::metadata(path).map_err(|cause| StartError::Keys(KeyError::File(cause)))?;
    }
    ring_place(settings)
}

/// A daemon that is bound to its addresses and not serving yet.
pub struct App {
    base: Base,
    intake: Intake,
    live: Arc<Live>,
    seen: SeenCertificates,
    used_keys: mpsc::Receiver<String>,
    party_side: Server,
    admin_side: Server,
    watch: Watch,
    faults: Faults,
    stop: CancellationToken,
}

impl App {
    /// Opens everything and binds both listeners; port 0 takes a free one.
    ///
    /// # Errors
    ///
    /// [`StartError`].
    pub async fn bind(settings: Settings, clock: Clock) -> Result<Self, StartError> {
        let base = Base::open(settings, clock).await?;
        let settings = Arc::clone(&base.foundation.settings);
        let (replace, current) = Current::new(base.setup().await?);
        let intake = base.intake(current.clone());
        let (used, used_keys) = mpsc::channel(1024);
        let stop = CancellationToken::new();
        let door = Door {
            current: current.clone(),
            clock: base.clock.clone(),
            used_keys: used,
            seen: SeenCertificates::default(),
            allowances: Allowances::new(base.clock.clone()),
        };
        let seen = door.seen.clone();
        let reception = Reception {
            intake: intake.clone(),
            memory: Memory::default(),
            door: door.clone(),
        };
        let counter = Counter {
            store: base.store.clone(),
            clock: base.clock.clone(),
            door,
            answers: Answers::default(),
            stop: stop.clone(),
        };
        let board = Board::new(base.store.clone());
        let faults = Faults::default();
        let unreachable = faults.clone();
        let health = Admin {
            store: base.store.clone(),
            clock: base.clock.clone(),
            current: current.clone(),
            board: board.clone(),
            unreachable: Arc::new(move |party| unreachable.has(party)),
            states: States::default(),
        };
        let desk = Desk {
            intake: intake.clone(),
            board: board.clone(),
            token: admin_token(&settings)?,
        };
        let own = OwnCertificate::load(&settings, base.clock.now()).map_err(StartError::Tls)?;
        if settings.tls.cert.is_none() {
            tracing::warn!(
                "A self-signed certificate is in use: set tls.cert and tls.key before partners connect"
            );
        }
        warn_of_parties_without_authority(&intake.current.get());
        let (foundation, keys) = (base.foundation.clone(), base.keys.clone());
        let live = Arc::new(Live::new(foundation, keys, intake.clone(), replace, own));
        let at = |cause| StartError::Listen(settings.listen, cause);
        let router = party_routes(reception, counter, health.clone());
        let listening = listen(
            settings.listen,
            Some(live.tls()),
            router,
            &live,
            &base.clock,
        );
        let party_side = listening.await?;
        let operators = admin::routes(health, desk);
        let listening = listen(settings.admin.listen, None, operators, &live, &base.clock);
        let admin_side = listening.await?;
        let port = party_side.address().map_err(at)?.port();
        let watch = Watch::new(
            board,
            base.clock.clone(),
            current,
            node_name(port),
            warnings::endings(Arc::clone(&live), seen.clone()),
            warnings::passed_over(&intake),
        )
        .map_err(StartError::Alerts)?;
        Ok(Self {
            base,
            intake,
            live,
            seen,
            used_keys,
            party_side,
            admin_side,
            watch,
            faults,
            stop,
        })
    }

    /// Where parties connect.
    ///
    /// # Errors
    ///
    /// The socket is gone.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.party_side.address()
    }

    /// Where operators and monitoring connect.
    ///
    /// # Errors
    ///
    /// The socket is gone.
    pub fn admin_address(&self) -> std::io::Result<SocketAddr> {
        self.admin_side.address()
    }

    /// Takes new settings over while [`App::run`] goes on.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        Reloader(Arc::clone(&self.live))
    }

    /// Ends [`App::run`] when it is cancelled.
    #[must_use]
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Serves until it is stopped, finishes what is in hand, closes the store.
    ///
    /// # Errors
    ///
    /// [`WriterEnded`]: it had to stop by itself.
    pub async fn run(self) -> Result<(), WriterEnded> {
        // What waits goes before anything new comes in.
        self.intake.release_all_parked().await;
        let mut tasks = Tasks::new(self.stop.clone());
        let (store, clock) = (self.base.store, self.base.clock);
        let (live, intake) = (Arc::clone(&self.live), self.intake.clone());
        tasks.start("configuration", move |stop| Arc::clone(&live).follow(stop));
        tasks.start("catch-up", move |stop| intake.clone().keep_up(stop));
        let warnings = Warnings {
            live: self.live,
            store: store.clone(),
            clock: clock.clone(),
            seen: self.seen,
        };
        tasks.start("certificates", move |stop| warnings.clone().run(stop));
        let pusher = Pusher {
            store: store.clone(),
            clock: clock.clone(),
            current: self.intake.current.clone(),
            faults: self.faults,
            stop: self.stop.clone(),
        };
        tasks.start("push", move |_| pusher.clone().run());
        tasks.start_housekeeping(&store, &self.intake, self.used_keys);
        tasks.spawn(self.watch.run(self.stop.clone()));
        let ended = tasks.stop_with(&store);
        // Here, so that a listener cannot end and the daemon go on without.
        tokio::join!(
            self.party_side.run(self.stop.clone()),
            self.admin_side.run(self.stop.clone()),
        );
        tasks.ended().await;
        let ended = ended.is_cancelled();
        store.close().await;
        if ended {
            return Err(WriterEnded);
        }
        tracing::info!("Stopped");
        Ok(())
    }
}

/// What writes to the database ended by a fault of ours. A process that stays
/// would refuse everything until somebody looks; a new one goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriterEnded;

impl fmt::Display for WriterEnded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("what writes to the database failed by a fault of ours: start it again")
    }
}

impl std::error::Error for WriterEnded {}

/// What parties may ask.
fn party_routes(reception: Reception, counter: Counter, health: Admin) -> Router {
    Router::new()
        .merge(receive::routes(reception))
        .merge(deliver::routes(counter))
        .merge(admin::health(health))
        .merge(http::openapi())
        .fallback(http::not_found)
        .method_not_allowed_fallback(http::method_not_allowed)
}

/// Listens at `address`, with bounds that follow the settings.
async fn listen(
    address: SocketAddr,
    tls: Option<watch::Receiver<Arc<ServerConfig>>>,
    router: Router,
    live: &Live,
    clock: &Clock,
) -> Result<Server, StartError> {
    Server::bind(address, tls, router, live.connections(), clock.clone())
        .await
        .map_err(|cause| StartError::Listen(address, cause))
}

/// How alerts name this node: the same over a restart, another for another.
fn node_name(port: u16) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    let host = if host.is_empty() { "node" } else { host };
    format!("{host}:{port}")
}

fn connection_limits(settings: &Settings) -> Limits {
    let limits = &settings.limits;
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Limits {
        connections: count(limits.max_connections),
        per_address: count(limits.connections_per_address),
        header: Duration::from_secs(limits.header_seconds),
        idle: Duration::from_secs(limits.idle_seconds),
        stop: Duration::from_secs(limits.stop_seconds),
    }
}

/// Whether the configured certificate can be used.
///
/// # Errors
///
/// [`StartError::Tls`].
pub fn check_certificate(settings: &Settings, clock: &Clock) -> Result<(), StartError> {
    if settings.tls.cert.is_none() {
        return Ok(());
    }
    OwnCertificate::load(settings, clock.now())
        .map(|_| ())
        .map_err(StartError::Tls)
}

/// What would keep messages from being pushed, a line per receiver.
#[must_use]
pub fn push_faults(setup: &Setup) -> Vec<String> {
    let parties = setup.directory.directory().parties.values();
    let fault = |party: &Party| {
        let fault = push_fault(party, &setup.settings)?;
        Some(format!("party {}: {fault}", party.id))
    };
    parties.filter_map(fault).collect()
}

/// What would keep messages from being pushed to a party: the setting and what
/// is wrong with it. None too for a party that polls.
#[must_use]
pub fn push_fault(party: &Party, settings: &Settings) -> Option<String> {
    match &party.delivery {
        Delivery::Push(push) => deliver::push::check(push, settings).err(),
        Delivery::Poll => None,
    }
}

/// The token of the operators' API, from the data folder.
///
/// # Errors
///
/// [`StartError::AdminToken`].
pub fn admin_token(settings: &Settings) -> Result<Token, StartError> {
    Token::open_or_create(&settings.data_dir).map_err(StartError::AdminToken)
}

/// Whether the webhook for alerts can be used.
///
/// # Errors
///
/// [`StartError::Alerts`].
pub fn check_alerts(settings: &Settings) -> Result<(), StartError> {
    check_webhook(settings).map_err(StartError::Alerts)
}

/// Why the daemon cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The data folder cannot be made.
    DataFolder(String, std::io::Error),
    /// The master key cannot be used.
    Keys(KeyError),
    /// The token of the operators' API cannot be used.
    AdminToken(KeyError),
    /// The database cannot be opened.
    Store(store::Error),
    /// Schemas, mappings, policy or directory cannot be used.
    Setup(SetupError),
    /// The certificate cannot be used.
    Tls(TlsError),
    /// An address cannot be bound.
    Listen(SocketAddr, std::io::Error),
    /// The address of the database cannot be read.
    Database(UnknownDatabase),
    /// The webhook for alerts cannot be used.
    Alerts(CourierError),
    /// It was told to stop in the middle.
    Interrupted,
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DataFolder(path, cause) => write!(f, "data folder {path}: {cause}"),
            Self::Keys(cause) => write!(f, "master key: {cause}"),
            Self::AdminToken(cause) => write!(f, "{}: {cause}", admin::TOKEN_FILE),
            Self::Store(cause) => write!(f, "database: {cause}"),
            Self::Setup(cause) => write!(f, "{cause}"),
            Self::Tls(cause) => write!(f, "certificate: {cause}"),
            Self::Listen(address, cause) => write!(f, "cannot listen on {address}: {cause}"),
            Self::Database(cause) => write!(f, "database.url: {cause}"),
            Self::Alerts(cause) => write!(f, "{cause}"),
            Self::Interrupted => f.write_str("the gateway is stopping"),
        }
    }
}

impl std::error::Error for StartError {}
