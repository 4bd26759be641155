//! The daemon: the only place where parts meet. One loop does the work; everything else rings its bell or reads its
//! pictures.

mod stop;
mod systemd;

use std::{
    collections::BTreeMap,
    fs::{File, TryLockError},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use whimbrel_shared::{
    address::{Way, way},
    ids::AppName,
    protocol::state::HealthItem,
    remedy::{Remedy, here},
};

use self::{
    stop::Stop,
    systemd::{State, Watchdog, notify, notify_reloading, notify_status},
};
#[cfg(unix)]
use crate::control::server::{Door, serve};
use crate::{
    ambient::{Ambient, pulses},
    config::{Config, Trust},
    control::{
        protocol::{DaemonView, Snapshot, Summary},
        server::{Desk, View},
        snapshot::snapshot,
    },
    cycle::{Core, Outcome, pending},
    migrate::{apply::Policy, backup::Shelf, halt::Halt, live::Live, work::Shared},
    store::{
        StoreError, ballast,
        device::{DeviceStore, Signatures},
        is_disk_full,
        private::{self, make_private_dir, make_private_file},
        settings,
    },
    transport::{
        TransportError,
        http::{Reqwest, Route},
    },
    trust,
    wake::{
        bell::{Bell, Rings, Why},
        cron, network, pace,
    },
};

/// A rest that is worth some work before it.
const LONG_REST: Duration = Duration::from_secs(10);
/// Events that a slow watcher may be behind.
const EVENTS_BEHIND: usize = 256;
/// A disk is freed by people: looking every few seconds costs little, and they wait for it.
const LOOK_FOR_ROOM: Duration = Duration::from_secs(5);
/// How often an idle daemon looks whether an application wrote to a database that exchanges rows.
const LOCAL_WRITES: Duration = Duration::from_secs(1);
/// How long more is waited for after the first write that is seen.
const EDITS_SETTLE: Duration = Duration::from_secs(1);
/// Between two exchanges for an application that writes without end.
const EDITS_APART: Duration = Duration::from_secs(5);
/// Networks change in bursts: so long after a cycle that went well, a change alone starts no other.
const NETWORK_SETTLES: Duration = Duration::from_secs(1);
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
    /// A root that the configuration names.
    #[error("the root of {app}: {source}")]
    Root {
        /// Whose.
        app: AppName,
        /// What is wrong with it.
        source: trust::PinError,
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
            Self::Io { source, .. } => private::remedy_of(source).unwrap_or_else(|| here("let the daemon's user write there")),
            Self::Root { source, .. } => source.remedy(),
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
/// starts no other. SIGHUP reads the configuration again; one that is wrong is logged, and the old one stays.
pub async fn run(mut config: Config, once: bool) -> Result<Ended, DaemonError> {
    let halt = Halt::default();
    let stop = Stop::listen(&halt);
    let mut seat = Seat::default();
    loop {
        match run_as(config.clone(), once, &halt, &stop, &mut seat).await? {
            Run::Ended(ended) => return Ok(ended),
            Run::Reload => match Config::read(&config.file) {
                Ok(new) => {
                    tracing::info!("the configuration was read again");
                    config = new;
                }
                Err(error) => tracing::error!("the configuration stays as it was: {error}; {}", error.remedy().sentence()),
            },
        }
    }
}

/// What a run leaves to the next one over a reload, so that nobody else gets in between and no command finds the daemon
/// away.
#[derive(Default)]
struct Seat {
    /// The state directory, and its lock.
    held: Option<(PathBuf, File)>,
    /// The control socket; none where it could not be bound.
    #[cfg(unix)]
    door: Option<Arc<Door>>,
}

impl Seat {
    /// Takes the state directory and the socket of `config`, and leaves others. False when a stop came first.
    async fn take(&mut self, config: &Config, stop: &Stop) -> Result<bool, DaemonError> {
        if self.held.as_ref().is_none_or(|(path, _)| *path != config.state_dir) {
            *self = Self::default();
            let Some(lock) = alone(&config.state_dir, stop).await? else { return Ok(false) };
            self.held = Some((config.state_dir.clone(), lock));
        }
        #[cfg(unix)]
        if self.door.as_ref().is_none_or(|door| !door.is(&config.socket, &config.control)) {
            self.door = None;
            match Door::open(&config.socket, &config.control) {
                Ok(door) => self.door = Some(Arc::new(door)),
                Err(source) => {
                    let error = DaemonError::Io { path: config.socket.clone(), source };
                    tracing::error!("the control socket cannot be used: {error}; {}", error.remedy().sentence());
                }
            }
        }
        Ok(true)
    }
}

/// Why a run with one configuration ended.
enum Run {
    Ended(Ended),
    Reload,
}

async fn run_as(config: Config, once: bool, halt: &Halt, stop: &Stop, seat: &mut Seat) -> Result<Run, DaemonError> {
    make_private_dir(&config.state_dir).map_err(|source| DaemonError::Io { path: config.state_dir.clone(), source })?;
    if !seat.take(&config, stop).await? {
        return Ok(Run::Ended(Ended { summary: Summary::default(), exchange: Ok(()) }));
    }
    let Some(store) = open_store(&config.state_dir, once, stop).await? else {
        return Ok(Run::Ended(Ended { summary: Summary::default(), exchange: Ok(()) }));
    };
    let store = store.with_signatures(match config.trust {
        Trust::None => Signatures::Ignored,
        Trust::Tuf => Signatures::Required,
    });
    let ambient = Ambient::real();
    let shared = Shared {
        store: Arc::new(Mutex::new(store)),
        state_dir: config.state_dir.clone(),
        ambient: ambient.clone(),
        policy: Policy {
            max_attempts: config.apply.max_attempts,
            grouping: config.apply.grouping,
            wait_for_app: config.apply.wait_for_app.get(),
            report_values: config.report_values,
            skip_verify: false,
        },
        halt: halt.clone(),
        shelf: Shelf { dir: config.backup.dir.clone(), keep: config.backup.keep },
    };
    let http = Arc::new(Reqwest::new(&Route {
        ca_file: config.ca_file.as_deref(),
        client_cert: config.client_cert.as_ref().map(|(certificate, key)| (certificate.as_path(), key.as_path())),
        proxy: config.proxy.as_deref(),
        insecure_http: config.insecure_http,
    })?);
    let server = config.server.clone().map_or_else(|| shared.store().setting(settings::SERVER), |url| Ok(Some(url)))?;
    if let Some(url) = server.filter(|url| way(url) == Ok(Way::Plain)) {
        tracing::warn!("insecure_transport: {url} is plain http to another machine; everybody on the way can read and change what is sent");
    }
    match config.trust {
        Trust::None => tracing::warn!("trust = \"none\": whatever the server says is run"),
        Trust::Tuf => {
            for (app, file) in &config.roots {
                let pinned = trust::pin_file(&shared.store(), app, file, ambient.now_ms());
                pinned.map_err(|source| DaemonError::Root { app: app.clone(), source })?;
            }
        }
    }

    let bell = Bell::default();
    let daemon = DaemonView {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        pid: std::process::id(),
        started_at_ms: ambient.now_ms(),
        activity: "starting".to_owned(),
        cycles: 0,
        once,
    };
    let roots = http.roots();
    let core = Core::new(config.clone(), shared.clone(), http, roots, stop.stop.clone());
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
    let mut looper = Loop {
        core,
        desk: desk.clone(),
        picture,
        daemon,
        told: Vec::new(),
        last_event: None,
        next_poll_ms: None,
        degraded: 0,
        last_report: None,
        watchdog: Watchdog::new(),
    };

    #[cfg(unix)]
    let control = seat.door.clone().map(|door| tokio::spawn(async move { serve(desk, &door).await }));
    #[cfg(not(unix))]
    drop(desk);
    let ended = if once { looper.once().await.map(Run::Ended) } else { looper.forever(&bell, stop).await };
    #[cfg(unix)]
    if let Some(control) = control {
        control.abort();
        // Until it has let go of the socket; that it was aborted is no news.
        let _ = control.await;
    }
    ended
}

/// Opens `device.db`. On a full disk the ballast is freed; if that is not enough, the daemon waits for room rather than
/// end: a unit that is restarted too often stays down. None when a stop came first.
async fn open_store(state_dir: &std::path::Path, once: bool, stop: &Stop) -> Result<Option<DeviceStore>, DaemonError> {
    let mut said = false;
    loop {
        match DeviceStore::open(state_dir) {
            Ok(store) => return Ok(Some(store)),
            Err(error) if is_disk_full(error.sqlite_code()) && !(once && said) => {
                ballast::free(state_dir);
                if !said {
                    tracing::error!("degraded: {error}; {}", error.remedy().sentence());
                    notify(&[State::Ready, State::Status(&format!("degraded: {error}"))]);
                    said = true;
                    continue;
                }
                notify(&[State::Watchdog]);
                tokio::select! { () = tokio::time::sleep(LOOK_FOR_ROOM) => {}, () = stop.wanted() => return Ok(None) }
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// One daemon for one state directory. Another one there (a second `run --once`, or one that is just ending) is waited
/// for; none when a stop came first.
async fn alone(state_dir: &std::path::Path, stop: &Stop) -> Result<Option<File>, DaemonError> {
    let path = state_dir.join("lock");
    let io = |source| DaemonError::Io { path: path.clone(), source };
    let file = make_private_file(&path).map_err(io)?;
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
    /// Number of the newest report in `device.db` then.
    last_report: Option<i64>,
    next_poll_ms: Option<i64>,
    /// Cycles in a row that our own store could not keep.
    degraded: u32,
    watchdog: Watchdog,
}

impl Loop {
    async fn once(&mut self) -> Result<Ended, DaemonError> {
        let Outcome { summary, exchange } = self.cycle(true).await?;
        Ok(Ended { summary, exchange })
    }

    async fn forever(&mut self, bell: &Bell, stop: &Stop) -> Result<Run, DaemonError> {
        let schedule = self.core.config.schedule.poll.clone();
        let expression = cron::parse(&schedule).map_err(DaemonError::Schedule)?;
        let ambient = self.core.shared.ambient.clone();
        let ringer = tokio::spawn(cron::ring(schedule, expression.clone(), bell.clone(), move || ambient.now_ms()));
        let network = tokio::spawn(network::listen(bell.clone()));
        notify(&[State::Ready, State::Status("started")]);

        let mut rings = Rings::default();
        let mut slept = time_asleep();
        let ended = loop {
            let begun = Instant::now();
            // A stop in the middle of it: the threads finish their transaction and start no other, no answer is waited for.
            let worked = self.cycle(rings.has(Why::Person)).await;
            let (rest, allowed) = match &worked {
                Ok(outcome) => (self.rest(&expression, &outcome.exchange), !matches!(&outcome.exchange, Err(e) if e.retry_after().is_some())),
                Err(error) => (self.degrade(error), false),
            };
            let online = matches!(&worked, Ok(outcome) if outcome.exchange.is_ok());
            let mut deadline = Instant::now() + rest;
            self.say_next(rest);
            if rest >= LONG_REST {
                give_memory_back();
            }
            rings = loop {
                tokio::select! {
                    () = stop.wanted() => break Rings::default(),
                    () = stop.reload_wanted() => break Rings::default(),
                    () = tokio::time::sleep_until(deadline) => break bell.take(),
                    () = self.watchdog.tick() => {
                        let now = time_asleep();
                        if now.saturating_sub(slept) > Duration::from_secs(2) {
                            tracing::info!("the machine slept; looking at the server");
                            bell.ring(Why::Resumed);
                        }
                        slept = now;
                    }
                    // Only while there is nothing else to do.
                    () = tokio::time::sleep(LOCAL_WRITES), if online && self.core.exchanges_rows() => {
                        if self.core.was_edited() {
                            deadline = deadline.min((begun + EDITS_APART).max(Instant::now() + EDITS_SETTLE));
                        }
                    }
                    () = bell.heard() => {
                        let heard = bell.take();
                        if heard.has(Why::Person) {
                            break heard;
                        }
                        if heard.is_urgent() {
                            let gap = if matches!(&worked, Ok(o) if o.exchange.is_ok()) { NETWORK_SETTLES } else { pace::SHORTEST };
                            deadline = deadline.min((begun + gap).max(Instant::now()));
                        }
                        if heard.has(Why::Schedule) && allowed {
                            // A fleet that shares a schedule must not share the second.
                            let spread = pace::spread(interval(&expression, self.core.shared.ambient.now_ms()), self.core.shared.ambient.chance());
                            deadline = deadline.min(Instant::now() + spread);
                        }
                    }
                }
            };
            if stop.is_wanted() {
                let ended = worked.map_or_else(|_| (Summary::default(), Ok(())), |o| (o.summary, o.exchange));
                break Run::Ended(Ended { summary: ended.0, exchange: ended.1 });
            }
            if stop.take_reload() {
                notify_reloading();
                break Run::Reload;
            }
            // However often somebody rings, the server and the files get a breath.
            tokio::time::sleep_until(begun + pace::SHORTEST).await;
        };
        if matches!(ended, Run::Ended(_)) {
            notify(&[State::Stopping]);
        }
        ringer.abort();
        network.abort();
        Ok(ended)
    }

    /// Our own store failed: a full disk, most likely. The daemon stays, frees its ballast so that what happened can be
    /// recorded, and tries again. Returns the pause.
    fn degrade(&mut self, error: &DaemonError) -> Duration {
        self.degraded = self.degraded.saturating_add(1);
        if self.degraded == 1 {
            tracing::error!("degraded: {error}; {}", error.remedy().sentence());
        }
        ballast::free(&self.core.config.state_dir);
        let mut picture = (**self.desk.picture.borrow()).clone();
        picture.health.retain(|h| h.code != "degraded");
        picture.health.push(crate::migrate::gate::item(
            "degraded",
            whimbrel_shared::protocol::state::Severity::Error,
            error.to_string(),
            error.remedy(),
        ));
        self.picture.send_replace(Arc::new(picture));
        notify(&[State::Status(&format!("degraded: {error}"))]);
        LOOK_FOR_ROOM
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

    fn say_next(&mut self, rest: Duration) {
        self.next_poll_ms = Some(self.core.shared.ambient.now_ms() + i64::try_from(rest.as_millis()).unwrap_or(i64::MAX));
        if self.degraded == 0 {
            self.daemon.activity = "idle".to_owned();
            show(&self.core, &self.desk, &self.picture, &self.daemon, self.next_poll_ms);
        }
    }

    /// One cycle, with a picture at each stage and the watchdog fed while it makes progress.
    async fn cycle(&mut self, forced: bool) -> Result<Outcome, DaemonError> {
        self.daemon.cycles += 1;
        let Self { core, desk, picture, daemon, next_poll_ms, watchdog, .. } = self;
        let mut publish = |core: &Core, activity: &'static str| {
            daemon.activity = activity.to_owned();
            show(core, desk, picture, daemon, *next_poll_ms);
        };
        let mut seen = pulses();
        let outcome = {
            let mut cycle = std::pin::pin!(core.cycle(forced, &mut publish));
            loop {
                tokio::select! {
                    outcome = &mut cycle => break outcome?,
                    () = watchdog.silent_tick() => {
                        let now = pulses();
                        if now != seen {
                            seen = now;
                            Watchdog::feed();
                        }
                    }
                }
            }
        };
        Watchdog::feed();
        if self.degraded > 0 {
            tracing::info!("the daemon's own store works again");
            self.degraded = 0;
        }
        ballast::keep(&self.core.config.state_dir);
        self.announce()?;
        self.hook();
        notify_status(&self.desk.snapshot());
        Ok(outcome)
    }

    /// Shows new events to whoever watches.
    fn announce(&mut self) -> Result<(), DaemonError> {
        let last = self.core.shared.store().last_report()?;
        if self.daemon.cycles > 1 && last == self.last_report {
            return Ok(());
        }
        self.last_report = last;
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
    // `plan` is asked seldom: what it needs is made once a cycle, and before work begins, so that it says what status does.
    let about_to_work = daemon.activity == "applying" && core.sites.values().any(|state| pending(state) > 0);
    if daemon.activity != "idle" && !about_to_work {
        return put(core, picture, daemon, next_poll_ms);
    }
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
    put(core, picture, daemon, next_poll_ms);
}

fn put(core: &Core, picture: &watch::Sender<Arc<Snapshot>>, daemon: &DaemonView, next_poll_ms: Option<i64>) {
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

/// Gives free memory back to the machine: looking at a hundred files on several threads leaves it in corners of the heap.
fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: it takes a number, and touches nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// What the machine slept since it was started: boot time runs on while it sleeps, monotonic time does not.
fn time_asleep() -> Duration {
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
