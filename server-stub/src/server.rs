//! A running server: opens the store, opens the door, flushes last-seen times, and drains when told to stop.

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{sync::oneshot, task::JoinHandle};
use tracing::{info, warn};
use whimbrel_shared::{
    duration::Span,
    remedy::{Remedy, here, wait},
};

use crate::{
    api::{self, App},
    door::{self, Door},
    online::{OnlineError, OnlineKeys},
    secrets::now_ms,
    seen::FLUSH_EVERY,
    store::{Store, StoreError, rows::Forget, sqlite::SqliteStore},
};

/// Longest that requests under way may take once the server was told to stop.
const DRAIN: Duration = Duration::from_secs(10);

/// Where a store is: `sqlite:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreAt {
    /// A SQLite file; made when it is not there.
    Sqlite(PathBuf),
}

impl FromStr for StoreAt {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.into())),
            Some(_) | None => Err("a store is written sqlite:PATH".to_owned()),
        }
    }
}

impl StoreAt {
    /// Opens it, as [`SqliteStore::open`] does.
    pub fn open(&self) -> Result<Box<dyn Store>, StoreError> {
        match self {
            Self::Sqlite(path) => Ok(Box::new(SqliteStore::open(path)?)),
        }
    }

    /// Where keys are when nobody says otherwise: beside the store, never in it, so that a copy of the store signs nothing.
    fn keys(&self) -> PathBuf {
        match self {
            Self::Sqlite(path) => path.with_file_name("keys"),
        }
    }
}

/// What a server needs to know.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where its store is.
    pub store: StoreAt,
    /// How long it remembers.
    pub keep: Keep,
    /// Folder of the keys that it signs with; none: the folder `keys` beside the store.
    pub keys: Option<PathBuf>,
}

/// How long a server remembers what rows leave behind. Each from [`Keep::SHORTEST`] to [`Keep::LONGEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Deletions of rows. A device that was away for longer takes a snapshot.
    pub deleted: Span,
    /// Answers to pushes. A push that is sent again after that is refused, and the device takes a snapshot.
    pub answers: Span,
    /// Conflicts that are decided. Those that wait for somebody stay.
    pub conflicts: Span,
}

impl Keep {
    /// A device that is off over night must not need a snapshot each morning.
    pub const SHORTEST: Span = Span::from_millis(86_400_000);
    /// The longest that a [`Span`] can be.
    pub const LONGEST: Span = Span::from_millis(3_650 * 86_400_000);

    fn forget(self, now_ms: i64) -> Forget {
        let before = |kept: Span| now_ms.saturating_sub(i64::try_from(kept.as_millis()).unwrap_or(i64::MAX));
        Forget { deleted_ms: before(self.deleted), answers_ms: before(self.answers), conflicts_ms: before(self.conflicts) }
    }
}

impl Default for Keep {
    fn default() -> Self {
        let month = Span::from_millis(30 * 86_400_000);
        Self { deleted: month, answers: month, conflicts: month }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address is taken or not ours.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// The store could not be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Its keys could not be used.
    #[error(transparent)]
    Keys(#[from] OnlineError),
    /// It ended by itself.
    #[error("the server ended: {0}")]
    Ended(String),
}

impl ServeError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Listen { .. } => here("choose another address with `--listen`, or stop what listens there"),
            Self::Store(error) => error.remedy(),
            Self::Keys(error) => error.remedy(),
            Self::Ended(_) => wait("start it again; its log says more"),
        }
    }
}

/// A server that serves until [`Server::stop`].
pub struct Server {
    addr: SocketAddr,
    door: Door,
    serving: JoinHandle<std::io::Result<()>>,
    stop_flushing: oneshot::Sender<()>,
    flusher: JoinHandle<()>,
}

/// Starts a server. It answers requests when this returns. Nothing is left running on failure.
pub async fn serve(config: Config) -> Result<Server, ServeError> {
    let refused = |source| ServeError::Listen { addr: config.listen, source };
    let store = config.store.open()?;
    let listener = TcpListener::bind(config.listen).map_err(refused)?;
    listener.set_nonblocking(true).map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    let online = OnlineKeys::load(&config.keys.clone().unwrap_or_else(|| config.store.keys()))?;
    let app = Arc::new(App::new(store, Box::new(now_ms), Some(online)));
    let (door, serving) = door::open(listener, api::router(app.clone()), DRAIN);
    let serving = tokio::spawn(serving);
    let (stop_flushing, stopped) = oneshot::channel();
    let flusher = tokio::spawn(flush(app, config.keep, stopped));
    Ok(Server { addr, door, serving, stop_flushing, flusher })
}

impl Server {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Takes no new connections, lets requests under way finish (at most 10 s), and writes what is in memory.
    pub async fn stop(mut self) -> Result<(), ServeError> {
        info!("draining {} connections", self.door.connections());
        self.door.close();
        let served = (&mut self.serving).await;
        // After the door: the last requests are seen too.
        let _ = self.stop_flushing.send(());
        if self.flusher.await.is_err() {
            warn!("the last-seen times of the last seconds are lost");
        }
        match served {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(ServeError::Ended(e.to_string())),
            Err(e) => Err(ServeError::Ended(e.to_string())),
        }
    }

    /// Returns when the server ended by itself, which it never should.
    pub async fn ended(&mut self) -> ServeError {
        match (&mut self.serving).await {
            Ok(Ok(())) => ServeError::Ended("the door was closed".to_owned()),
            Ok(Err(e)) => ServeError::Ended(e.to_string()),
            Err(e) => ServeError::Ended(e.to_string()),
        }
    }
}

/// How often what is older than it is kept is looked for.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// How often signatures that are due are looked for: each has a week from when it is due to its end.
const RENEW_EVERY: Duration = Duration::from_secs(3600);

async fn flush(app: Arc<App>, keep: Keep, mut stopped: oneshot::Receiver<()>) {
    let (mut forgot, mut renewed): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let last = tokio::time::timeout(FLUSH_EVERY, &mut stopped).await.is_ok();
        app.seen.flush(app.store.as_ref()).await;
        if last {
            return;
        }
        if renewed.is_none_or(|at| at.elapsed() >= RENEW_EVERY) {
            renewed = Some(Instant::now());
            api::signed::renew(&app).await;
        }
        if forgot.is_none_or(|at| at.elapsed() >= FORGET_EVERY) {
            forgot = Some(Instant::now());
            match app.store.forget_rows(keep.forget(now_ms())).await {
                Ok(0) => {}
                Ok(rows) => info!("{rows} deletions of rows from more than {} ago are forgotten", keep.deleted),
                Err(e) => warn!("old deletions of rows could not be forgotten: {e}"),
            }
        }
    }
}
