//! The daemon: the only place where parts meet. One loop does the work; everything else rings its bell or reads its
//! pictures.

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::PathBuf,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use whimbrel_shared::{
    protocol::state::HealthItem,
    remedy::{Remedy, here},
};

use crate::{
    ambient::Ambient,
    config::Config,
    control::{
        protocol::{DaemonView, Snapshot, Summary},
        server::{Desk, View},
        snapshot::snapshot,
    },
    cycle::{Core, Outcome},
    migrate::{
        apply::Policy,
        live::{Live, PULSE},
        work::Shared,
    },
    store::{
        StoreError,
        device::{DeviceStore, make_private_dir},
    },
    transport::{TransportError, http::Reqwest},
    wake::{
        bell::{Bell, Rings, Why},
        cron::{self, Ringer},
        network, pace,
    },
};

/// Events that a slow watcher may be behind.
const EVENTS_BEHIND: usize = 256;
/// Longest that a hook may run.
const HOOK_TIMEOUT: Duration = Duration::from_secs(60);

/// Why the daemon could not start, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// `device.db`.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// TLS or HTTP could not be set up.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The state directory or the control socket.
    #[error("{path}: {source}")]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The scheduler.
    #[error("the schedule cannot be started: {0}")]
    Schedule(String),
}

impl DaemonError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Store(error) => error.remedy(),
            Self::Transport(error) => error.remedy(),
            Self::Io { source, .. } if source.raw_os_error() == Some(libc_enametoolong()) || source.kind() == std::io::ErrorKind::InvalidInput => {
                here("a socket's path may have at most 107 bytes: set `socket` to a shorter one")
            }
            Self::Io { .. } => here("let the daemon's user write there"),
            Self::Schedule(_) => here("correct `schedule.poll` in the configuration"),
        }
    }
}

fn libc_enametoolong() -> i32 {
    #[cfg(unix)]
    return libc::ENAMETOOLONG;
    #[cfg(not(unix))]
    return 206;
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// Sum over the databases at the last cycle.
    pub summary: Summary,
    /// Whether the server was reached in it.
    pub exchange: Result<(), TransportError>,
}

/// Runs until it is told to stop (SIGTERM, SIGINT), or for one cycle. A stop finishes the transaction that is open and
/// starts no other.
pub async fn run(config: Config, once: bool) -> Result<Ended, DaemonError> {
    make_private_dir(&config.state_dir).map_err(|source| DaemonError::Io { path: config.state_dir.clone(), source })?;
    let cancel = Arc::new(AtomicBool::new(false));
    let mut stop = Stop::listen(cancel.clone());
    let Some(_lock) = alone(&config.state_dir, &mut stop).await? else {
        return Ok(Ended { summary: Summary::default(), exchange: Ok(()) });
    };
    let store = DeviceStore::open(&config.state_dir)?;
    let ambient = Ambient::real();
    let shared = Shared {
        store: Arc::new(Mutex::new(store)),
        state_dir: config.state_dir.clone(),
        ambient: ambient.clone(),
        policy: Policy { max_attempts: config.apply.max_attempts, grouping: config.apply.grouping, wait_for_app: config.apply.wait_for_app.get() },
        cancel,
    };
    let http = Arc::new(Reqwest::new(config.ca_file.as_deref())?);
    tracing::warn!("trust = \"none\": whatever the server says is run");

    let bell = Bell::default();
    let daemon = DaemonView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at_ms: ambient.now_ms(),
        activity: "starting".to_owned(),
        cycles: 0,
    };
    let core = Core::new(config.clone(), shared.clone(), http);
    let (picture, picture_rx) = watch::channel(Arc::new(snapshot(&core, daemon.clone(), None)?));
    let desk = Desk {
        config: Arc::new(config.clone()),
        shared,
        picture: picture_rx,
        lives: Arc::default(),
        views: Arc::default(),
        events: broadcast::channel(EVENTS_BEHIND).0,
        bell: bell.clone(),
    };
    let mut looper =
        Loop { core, desk: desk.clone(), picture, daemon, told: Vec::new(), last_event: None, next_poll_ms: None, watchdog: Watchdog::new() };

    let control = tokio::spawn(serve(desk));
    let ended = if once { looper.once().await } else { looper.forever(&bell, &mut stop).await };
    control.abort();
    ended
}

async fn serve(desk: Desk) {
    let path = desk.config.socket.clone();
    #[cfg(unix)]
    if let Err(source) = crate::control::server::serve(desk).await {
        let error = DaemonError::Io { path, source };
        tracing::error!("the control socket cannot be used: {error}; {}", error.remedy().sentence());
    }
    #[cfg(not(unix))]
    {
        let _ = (desk, path);
        std::future::pending::<()>().await;
    }
}

/// One daemon for one state directory. Another one there (a second `run --once`, or one that is just ending) is waited
/// for; none when a stop came first.
async fn alone(state_dir: &std::path::Path, stop: &mut Stop) -> Result<Option<File>, DaemonError> {
    let path = state_dir.join("lock");
    let io = |source| DaemonError::Io { path: path.clone(), source };
    let file = File::options().read(true).write(true).create(true).truncate(false).open(&path).map_err(io)?;
    let mut said = false;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            Err(TryLockError::Error(source)) => return Err(io(source)),
            Err(TryLockError::WouldBlock) => {
                if !said {
                    tracing::info!("another whimbrel works in {}; waiting for it", state_dir.display());
                    said = true;
                }
                tokio::select! {
                    () = tokio::time::sleep(Duration::from_millis(100)) => {}
                    () = stop.wanted() => return Ok(None),
                }
            }
        }
    }
}

struct Loop {
    core: Core,
    desk: Desk,
    picture: watch::Sender<Arc<Snapshot>>,
    daemon: DaemonView,
    /// What the hook was told about, so that it is told once.
    told: Vec<(PathBuf, String)>,
    /// Newest event that watchers were shown.
    last_event: Option<whimbrel_shared::ids::EventId>,
    next_poll_ms: Option<i64>,
    watchdog: Watchdog,
}

impl Loop {
    async fn once(&mut self) -> Result<Ended, DaemonError> {
        let Outcome { summary, exchange } = self.cycle(true).await?;
        Ok(Ended { summary, exchange })
    }

    async fn forever(&mut self, bell: &Bell, stop: &mut Stop) -> Result<Ended, DaemonError> {
        let schedule = self.core.config.schedule.poll.clone();
        let ringer = Ringer::start(&schedule, bell.clone()).await.map_err(|e| DaemonError::Schedule(e.to_string()))?;
        let network = tokio::spawn(network::listen(bell.clone()));
        let expression = cron::parse(&schedule).map_err(DaemonError::Schedule)?;
        notify_ready();

        let mut rings = Rings::default();
        let mut last_clock = clocks();
        let ended = loop {
            let forced = rings.has(Why::Person) || rings.has(Why::Network) || rings.has(Why::Resumed);
            let Outcome { summary, exchange } = tokio::select! {
                outcome = self.cycle(forced) => outcome?,
                // The work in the threads sees the cancel and ends; what is committed is committed.
                () = stop.wanted() => break Ended { summary: Summary::default(), exchange: Ok(()) },
            };
            let begun = Instant::now();
            let mut deadline = begun + self.rest(&expression, &exchange);
            self.say_next(deadline);
            rings = loop {
                tokio::select! {
                    () = stop.wanted() => break Rings::default(),
                    () = tokio::time::sleep_until(deadline) => break bell.take(),
                    () = self.watchdog.tick() => {
                        // Suspended time shows as boot time running ahead of monotonic time.
                        let now = clocks();
                        if now.saturating_sub(last_clock) > Duration::from_secs(2) {
                            tracing::info!("the machine slept; looking at the server");
                            bell.ring(Why::Resumed);
                        }
                        last_clock = now;
                    }
                    () = bell.heard() => {
                        let heard = bell.take().and(rings_none());
                        if heard.has(Why::Person) || heard.has(Why::Network) || heard.has(Why::Resumed) {
                            break heard;
                        }
                        if heard.has(Why::Schedule) && exchange_allows(&exchange) {
                            // A fleet that shares a schedule must not share the second.
                            let spread = pace::spread(interval(&expression, self.core.shared.ambient.now_ms()), self.core.shared.ambient.chance());
                            deadline = deadline.min(Instant::now() + spread);
                        }
                    }
                }
            };
            if stop.is_wanted() {
                break Ended { summary, exchange };
            }
            // However often somebody rings, the server and the files get a breath.
            tokio::time::sleep_until(begun + pace::SHORTEST).await;
        };
        notify_stopping();
        ringer.stop().await;
        network.abort();
        Ok(ended)
    }

    /// How long the loop rests after a cycle, if nobody rings.
    fn rest(&self, expression: &croner::Cron, exchange: &Result<(), TransportError>) -> Duration {
        let ambient = &self.core.shared.ambient;
        let now_ms = ambient.now_ms();
        let until_next = cron::next_ms(expression, now_ms, &chrono::Local)
            .map_or(Duration::from_secs(3600), |next| Duration::from_millis((next - now_ms).max(0).unsigned_abs()));
        let scheduled = pace::deadline(until_next, interval(expression, now_ms));
        let exchange = match exchange {
            Ok(()) => scheduled,
            Err(error) => {
                let pause = pace::pause(self.core.server.failures, ambient.chance(), error.retry_after());
                if error.retry_after().is_some() { pause } else { pause.min(scheduled.max(Duration::from_secs(5))) }
            }
        };
        self.core.next_try().map_or(exchange, |next| next.max(pace::SHORTEST).min(exchange))
    }

    fn say_next(&mut self, deadline: Instant) {
        let wait = deadline.saturating_duration_since(Instant::now());
        self.next_poll_ms = Some(self.core.shared.ambient.now_ms() + i64::try_from(wait.as_millis()).unwrap_or(i64::MAX));
        self.publish("idle");
    }

    /// One cycle, with a picture at each stage and the watchdog fed while it makes progress.
    async fn cycle(&mut self, forced: bool) -> Result<Outcome, DaemonError> {
        self.daemon.cycles += 1;
        let Self { core, desk, picture, daemon, next_poll_ms, watchdog, .. } = self;
        let mut publish = |core: &Core, activity: &'static str| {
            daemon.activity = activity.to_owned();
            show(core, desk, picture, daemon, *next_poll_ms);
        };
        let mut seen = PULSE.load(Ordering::Relaxed);
        let outcome = {
            let mut cycle = std::pin::pin!(core.cycle(forced, &mut publish));
            loop {
                tokio::select! {
                    outcome = &mut cycle => break outcome?,
                    () = watchdog.silent_tick() => {
                        let now = PULSE.load(Ordering::Relaxed);
                        if now != seen {
                            seen = now;
                            Watchdog::feed();
                        }
                    }
                }
            }
        };
        Watchdog::feed();
        self.announce()?;
        self.hook();
        notify_status(&self.desk.snapshot());
        Ok(outcome)
    }

    fn publish(&mut self, activity: &str) {
        self.daemon.activity = activity.to_owned();
        show(&self.core, &self.desk, &self.picture, &self.daemon, self.next_poll_ms);
    }

    /// Shows new events to whoever watches.
    fn announce(&mut self) -> Result<(), DaemonError> {
        let recent = self.core.shared.store().history(None, EVENTS_BEHIND as u32)?;
        let newest = recent.first().map(|e| e.event_id);
        if self.last_event.is_some() || self.daemon.cycles > 1 {
            let new: Vec<_> = recent.into_iter().take_while(|e| Some(e.event_id) != self.last_event).collect();
            for event in new.into_iter().rev() {
                // Nobody watching is no error.
                let _ = self.desk.events.send(event);
            }
        }
        self.last_event = newest;
        Ok(())
    }

    /// Runs the hook for what newly failed or needs a person.
    fn hook(&mut self) {
        let Some(command) = self.core.config.notify.clone() else { return };
        let mut now = Vec::new();
        for (path, state) in &self.core.sites {
            for health in state.health.iter().filter(|h| h.remedy.needs_a_person() && h.severity > whimbrel_shared::protocol::state::Severity::Info) {
                let key = (path.clone(), health.code.clone());
                if !self.told.contains(&key) {
                    tokio::spawn(tell(command.clone(), path.clone(), health.clone()));
                }
                now.push(key);
            }
        }
        self.told = now;
    }
}

async fn tell(command: PathBuf, database: PathBuf, health: HealthItem) {
    let child = tokio::process::Command::new(&command)
        .env("WHIMBREL_DATABASE", &database)
        .env("WHIMBREL_CODE", &health.code)
        .env("WHIMBREL_MESSAGE", &health.message)
        .env("WHIMBREL_REMEDY", health.remedy.sentence())
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn();
    let outcome = match child {
        Ok(mut child) => match tokio::time::timeout(HOOK_TIMEOUT, child.wait()).await {
            Ok(Ok(status)) if status.success() => return,
            Ok(Ok(status)) => status.to_string(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("it ran longer than {HOOK_TIMEOUT:?} and was ended"),
        },
        Err(error) => error.to_string(),
    };
    tracing::warn!("notify command {}: {outcome}", command.display());
}

/// Publishes a picture, and what the control socket needs beside it.
fn show(core: &Core, desk: &Desk, picture: &watch::Sender<Arc<Snapshot>>, daemon: &DaemonView, next_poll_ms: Option<i64>) {
    let lives: BTreeMap<PathBuf, Live> = core.sites.iter().map(|(p, s)| (p.clone(), s.site.live.clone())).collect();
    *desk.lives.lock().unwrap_or_else(PoisonError::into_inner) = lives;
    *desk.views.lock().unwrap_or_else(PoisonError::into_inner) = core
        .sites
        .iter()
        .filter_map(|(path, state)| {
            let view = View {
                site: state.site.clone(),
                looked: state.looked.clone()?,
                chain: core.known_chain(&state.site.rule.app),
                order: state.order,
                app_version: state.app_version.clone(),
            };
            Some((path.clone(), view))
        })
        .collect();
    match snapshot(core, daemon.clone(), next_poll_ms) {
        Ok(snapshot) => {
            picture.send_replace(Arc::new(snapshot));
        }
        Err(error) => tracing::error!("{error}"),
    }
}

/// How far apart the schedule's rings are now.
fn interval(expression: &croner::Cron, now_ms: i64) -> Duration {
    let first = cron::next_ms(expression, now_ms, &chrono::Local);
    let second = first.and_then(|f| cron::next_ms(expression, f, &chrono::Local));
    match (first, second) {
        (Some(first), Some(second)) => Duration::from_millis((second - first).max(1000).unsigned_abs()),
        _ => Duration::from_secs(3600),
    }
}

/// A schedule does not overrule a server that asked to be left alone.
fn exchange_allows(exchange: &Result<(), TransportError>) -> bool {
    match exchange {
        Ok(()) => true,
        Err(error) => error.retry_after().is_none(),
    }
}

fn rings_none() -> Rings {
    Rings::default()
}

/// Boot time minus monotonic time: what the machine slept since it was started.
fn clocks() -> Duration {
    #[cfg(target_os = "linux")]
    {
        let read = |id| {
            // SAFETY: a plain system call that fills a plain structure.
            unsafe {
                let mut t: libc::timespec = std::mem::zeroed();
                libc::clock_gettime(id, &raw mut t);
                Duration::new(t.tv_sec.unsigned_abs(), u32::try_from(t.tv_nsec).unwrap_or(0))
            }
        };
        read(libc::CLOCK_BOOTTIME).saturating_sub(read(libc::CLOCK_MONOTONIC))
    }
    #[cfg(not(target_os = "linux"))]
    Duration::ZERO
}

/// Stop means: finish this transaction, start no other.
struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Listens for SIGTERM and SIGINT; a second one ends the process at once.
    fn listen(cancel: Arc<AtomicBool>) -> Self {
        let (send, receive) = watch::channel(false);
        tokio::spawn(async move {
            signal().await;
            tracing::info!("stopping: the transaction that is open is finished, no other is started");
            cancel.store(true, Ordering::Relaxed);
            send.send_replace(true);
            signal().await;
            std::process::exit(1);
        });
        Self(receive)
    }

    async fn wanted(&mut self) {
        if self.0.wait_for(|wanted| *wanted).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn is_wanted(&self) -> bool {
        *self.0.borrow()
    }
}

async fn signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let (Ok(mut term), Ok(mut int)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt())) else {
            return std::future::pending().await;
        };
        tokio::select! { _ = term.recv() => {}, _ = int.recv() => {} }
    }
    #[cfg(not(unix))]
    if tokio::signal::ctrl_c().await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// systemd's watchdog, fed by the loop: while it rests it wakes to say so, while it works only progress counts.
struct Watchdog {
    every: Duration,
    next: Instant,
}

impl Watchdog {
    fn new() -> Self {
        // Also without a watchdog the loop looks at the clocks from time to time, for a suspend.
        let mut every = Duration::from_secs(30);
        #[cfg(unix)]
        if let Some(timeout) = sd_notify::watchdog_enabled() {
            every = every.min(timeout / 3);
        }
        Self { every, next: Instant::now() + every }
    }

    async fn silent_tick(&mut self) {
        tokio::time::sleep_until(self.next).await;
        self.next = Instant::now() + self.every;
    }

    async fn tick(&mut self) {
        self.silent_tick().await;
        Self::feed();
    }

    fn feed() {
        notify(&[State::Watchdog]);
    }
}

enum State<'a> {
    Ready,
    Stopping,
    Watchdog,
    Status(&'a str),
}

/// Tells systemd, where there is one.
fn notify(states: &[State<'_>]) {
    #[cfg(unix)]
    {
        let states: Vec<_> = states
            .iter()
            .map(|s| match s {
                State::Ready => sd_notify::NotifyState::Ready,
                State::Stopping => sd_notify::NotifyState::Stopping,
                State::Watchdog => sd_notify::NotifyState::Watchdog,
                State::Status(text) => sd_notify::NotifyState::Status(text),
            })
            .collect();
        if let Err(error) = sd_notify::notify(&states) {
            tracing::debug!(%error, "systemd could not be told");
        }
    }
    #[cfg(not(unix))]
    let _ = states;
}

fn notify_ready() {
    notify(&[State::Ready, State::Status("started")]);
}

fn notify_stopping() {
    notify(&[State::Stopping]);
}

fn notify_status(snapshot: &Snapshot) {
    let (done, total) = snapshot.databases.iter().fold((0, 0), |(d, t), db| (d + u32::from(db.pending == 0), t + 1));
    let text =
        format!("{}; {done} of {total} databases at their planned version; {} reports unsent", snapshot.server.state, snapshot.server.reports_unsent);
    notify(&[State::Status(&text)]);
}
