//! The daemon's end of the control socket. It reads pictures, keeps requests and rings the bell; it does no work itself.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
};

use tokio::sync::{broadcast, watch};
use whimbrel_shared::{
    ids::RequestId,
    remedy::{here, wait},
    status::{Event, Status},
};

use super::protocol::{CONTROL_PROTOCOL, Check, PersonOrder, Reply, Request, Selector, Snapshot, Summary};
use crate::{
    config::Config,
    migrate::{
        chain::Chain,
        live::{Live, Phase},
        work::{Looked, Shared, Site},
    },
    store::settings,
    wake::bell::{Bell, Why},
};

/// What the socket shows of the loop. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    /// As configured.
    pub config: Arc<Config>,
    /// The store, clock and dice.
    pub shared: Shared,
    /// The last picture.
    pub picture: watch::Receiver<Arc<Snapshot>>,
    /// What is being done on each database right now.
    pub lives: Arc<Mutex<BTreeMap<PathBuf, Live>>>,
    /// What `plan` needs of each database.
    pub views: Arc<Mutex<BTreeMap<PathBuf, View>>>,
    /// Events as they happen.
    pub events: broadcast::Sender<Event>,
    /// Rung for every order.
    pub bell: Bell,
}

/// A database as the loop last saw it.
#[derive(Clone)]
pub struct View {
    /// The database.
    pub site: Site,
    /// What was found.
    pub looked: Looked,
    /// Its chain.
    pub chain: Arc<Chain>,
    /// What the plan and the gates were.
    pub order: Option<whimbrel_shared::protocol::poll::Order>,
    /// The application's build.
    pub app_version: Option<String>,
}

impl Desk {
    /// The last picture, with what is being done this moment.
    pub fn snapshot(&self) -> Snapshot {
        let mut snapshot = (**self.picture.borrow()).clone();
        let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
        for database in &mut snapshot.databases {
            if let Some(live) = lives.get(&database.path) {
                database.now = live.picture();
                if let Phase::Running { .. } | Phase::Committing = database.now.phase {
                    database.status = Status::Running;
                }
                database.waiting_ms = live.waiting().map(|w| u64::try_from(w.as_millis()).unwrap_or(u64::MAX));
            }
        }
        snapshot
    }

    /// Answers everything that is one reply. Off the async threads: it reads `device.db`.
    pub fn answer(&self, request: Request) -> Reply {
        match self.try_answer(request) {
            Ok(reply) => reply,
            Err(error) => Reply::Refused { message: error.to_string(), remedy: error.remedy() },
        }
    }

    fn try_answer(&self, request: Request) -> Result<Reply, crate::store::StoreError> {
        Ok(match request {
            Request::Hello { .. } => {
                Reply::Hello { protocol: CONTROL_PROTOCOL, version: env!("CARGO_PKG_VERSION").to_owned(), pid: std::process::id() }
            }
            Request::Status | Request::Watch => Reply::Status(Box::new(self.snapshot())),
            Request::History { database, limit } => self.history(&database, limit)?,
            Request::Plan { database, .. } => self.plan(&database, None),
            Request::Backups { database } => self.backups(&database)?,
            Request::Adopt { database } => self.adopt(&database),
            Request::FailedItems { database, limit } => self.failed_items(&database, limit),
            Request::Tables { database } => self.tables(&database),
            Request::Conflicts { database, id, all, limit } => self.conflicts(&database, id, all, limit),
            Request::Quarantine { database, limit } => self.quarantine(&database, limit),
            Request::Order { database, order, .. } => self.order(&database, &order)?,
            Request::Outcome { request_id } => match self.shared.store().outcome(request_id)? {
                None => Reply::Refused { message: format!("no request has the id {request_id}"), remedy: here("only the last 200 are kept") },
                Some(outcome) => Reply::Outcome { summary: outcome.and_then(|o| serde_json::from_str(&o).ok()) },
            },
            Request::Doctor => Reply::Doctor { checks: self.doctor() },
            Request::AppVersion { app, version, sqlite } => {
                self.shared.store().atomically(|store| {
                    store.set_setting(&settings::app_version(&app), version.as_deref())?;
                    match &sqlite {
                        Some(sqlite) => store.set_setting(&settings::app_sqlite(&app), Some(sqlite)),
                        None => Ok(()),
                    }
                })?;
                self.bell.ring(Why::Person);
                Reply::Done
            }
            Request::Poll => {
                self.bell.ring(Why::Person);
                Reply::Done
            }
        })
    }

    /// The databases that a selector means; the refusal names those there are.
    pub(super) fn select(&self, selector: &Selector) -> Result<Vec<super::protocol::DatabaseView>, Reply> {
        let snapshot = self.snapshot();
        let Some(text) = &selector.0 else { return Ok(snapshot.databases) };
        let names: Vec<String> = snapshot.databases.iter().map(|d| d.path.display().to_string()).collect();
        let found: Vec<_> = snapshot
            .databases
            .into_iter()
            .filter(|d| {
                std::fs::canonicalize(text).is_ok_and(|p| p == d.path)
                    || d.path.as_os_str() == text.as_str()
                    || d.path.file_name().is_some_and(|n| n == text.as_str())
                    || (text.len() >= 4 && d.client_id.is_some_and(|c| c.to_string().starts_with(text.as_str())))
            })
            .collect();
        if found.is_empty() {
            return Err(Reply::Refused {
                message: format!("no database is called {text:?}"),
                remedy: here(format!("it is one of: {}", names.join(", "))),
            });
        }
        Ok(found)
    }

    fn history(&self, database: &Selector, limit: u32) -> Result<Reply, crate::store::StoreError> {
        let chosen = match (database, self.select(database)) {
            (Selector(None), _) => return Ok(Reply::History { events: self.shared.store().history(None, limit)? }),
            (_, Err(refusal)) => return Ok(refusal),
            (_, Ok(chosen)) => chosen,
        };
        let mut events = Vec::new();
        for client in chosen.iter().filter_map(|d| d.client_id) {
            events.extend(self.shared.store().history(Some(client), limit)?);
        }
        events.sort_by_key(|e| std::cmp::Reverse(e.at_ms));
        events.truncate(limit as usize);
        Ok(Reply::History { events })
    }

    fn order(&self, database: &Selector, order: &PersonOrder) -> Result<Reply, crate::store::StoreError> {
        let chosen = match self.select(database) {
            Ok(chosen) => chosen,
            Err(refusal) => return Ok(refusal),
        };
        if let PersonOrder::Revert { migration: None, to: None } = order {
            // "The last one" would mean another one after a restart.
            return Ok(Reply::Refused { message: "the revert names neither a migration nor a version".to_owned(), remedy: here("name one of them") });
        }
        if let Err(refusal) = super::rows::is_of_one(order, &chosen) {
            return Ok(refusal);
        }
        let order = &match self.named(order, &chosen) {
            Ok(order) => order,
            Err(refusal) => return Ok(refusal),
        };
        let now_ms = self.shared.ambient.now_ms();
        let id = RequestId::from_dice(self.shared.ambient.dice());
        let body = serde_json::to_string(&(database, order)).expect("an order has text keys");
        self.shared.store().atomically(|store| {
            for client in chosen.iter().filter_map(|d| d.client_id) {
                match order {
                    PersonOrder::Hold { until_ms } => store.set_hold(client, Some(*until_ms), now_ms)?,
                    // Who goes back wants to stay there: the plan would lead forward again at the next poll.
                    PersonOrder::Revert { .. } => store.set_hold(client, Some(None), now_ms)?,
                    PersonOrder::Release => store.set_hold(client, None, now_ms)?,
                    PersonOrder::Apply { .. }
                    | PersonOrder::Retry
                    | PersonOrder::RetryItems
                    | PersonOrder::Cycle
                    | PersonOrder::Backup
                    | PersonOrder::Restore { .. }
                    | PersonOrder::Exchange { .. }
                    | PersonOrder::Decide { .. }
                    | PersonOrder::RetryWaiting
                    | PersonOrder::DropWaiting { .. }
                    | PersonOrder::Detach { .. } => {}
                    // Held once it is taken back, and not when that is refused.
                    PersonOrder::Adopt { .. } | PersonOrder::GiveBack => {}
                }
            }
            store.put_request(id, &body, now_ms)
        })?;
        if matches!(order, PersonOrder::Hold { .. }) {
            // What is running there is rolled back: a hold means now.
            let lives = self.lives.lock().unwrap_or_else(PoisonError::into_inner);
            for live in chosen.iter().filter_map(|d| lives.get(&d.path)) {
                live.hold.store(true, Ordering::Relaxed);
            }
        }
        self.bell.ring(Why::Person);
        Ok(Reply::Accepted { request_id: id })
    }

    /// Every check is one thing that may be wrong; health items that are shown anyway come after them.
    fn doctor(&self) -> Vec<Check> {
        let snapshot = self.snapshot();
        let check = |code: &str, result: &str, message: String, remedy| Check { code: code.to_owned(), result: result.to_owned(), message, remedy };
        let mut checks = vec![check("daemon", "ok", format!("whimbrel {} runs as process {}", snapshot.daemon.version, snapshot.daemon.pid), None)];
        let server = &snapshot.server;
        checks.push(match (server.state.as_str(), &server.url) {
            ("online", Some(url)) => check("server", "ok", format!("{url} answers"), None),
            ("not_enrolled", _) | (_, None) => {
                check("server", "warning", "the device is not enrolled".to_owned(), Some(here("`whimbrel enroll URL --token TOKEN`")))
            }
            ("unknown", Some(url)) => check("server", "info", format!("{url} has not been asked yet"), None),
            (_, Some(url)) => {
                check("server", "warning", server.error.clone().unwrap_or_else(|| format!("{url} does not answer")), server.remedy.clone())
            }
        });
        checks.push(if server.reports_unsent == 0 {
            check("reports", "ok", "the server has every report".to_owned(), None)
        } else {
            check(
                "reports",
                "info",
                format!("{} reports wait to be sent", server.reports_unsent),
                Some(wait("they are sent when the server answers")),
            )
        });
        let free = crate::migrate::files::free_bytes(&self.config.state_dir);
        checks.push(match free {
            Some(free) if free < 16 * 1024 * 1024 => {
                check("disk", "error", format!("{free} bytes are free for {}", self.config.state_dir.display()), Some(here("free some disk space")))
            }
            Some(free) => check("disk", "ok", format!("{free} bytes are free for {}", self.config.state_dir.display()), None),
            None => check("disk", "info", "this system does not say how much is free".to_owned(), None),
        });
        checks.push(state_dir(&self.config.state_dir));
        for database in &snapshot.databases {
            let name = database.path.display();
            if database.health.is_empty() {
                checks.push(check("database", "ok", format!("{name} is at version {} of {}", database.version, database.latest), None));
            }
            for health in &database.health {
                checks.push(check(&health.code, severity(health.severity), format!("{name}: {}", health.message), Some(health.remedy.clone())));
            }
        }
        for health in &snapshot.health {
            checks.push(check(&health.code, severity(health.severity), health.message.clone(), Some(health.remedy.clone())));
        }
        checks
    }
}

fn severity(severity: whimbrel_shared::protocol::state::Severity) -> &'static str {
    use whimbrel_shared::protocol::state::Severity;
    match severity {
        Severity::Info => "info",
        Severity::Warning => "warning",
        Severity::Error => "error",
    }
}

/// Whether others can read what is ours.
fn state_dir(path: &Path) -> Check {
    let check = |result: &str, message: String, remedy| Check { code: "state_dir".to_owned(), result: result.to_owned(), message, remedy };
    #[cfg(unix)]
    if let Ok(metadata) = std::fs::metadata(path) {
        use std::os::unix::fs::MetadataExt;
        if metadata.mode() & 0o077 != 0 {
            return check("warning", format!("{} can be entered by others", path.display()), Some(here(format!("chmod 700 {}", path.display()))));
        }
    }
    check("ok", format!("{} is the daemon's alone", path.display()), None)
}

#[cfg(unix)]
pub use socket::{Door, serve};

#[cfg(unix)]
mod socket {
    use std::{
        io,
        os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
        path::{Path, PathBuf},
        sync::Arc,
        time::Duration,
    };

    use tokio::{
        io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
        net::{
            UnixListener, UnixStream,
            unix::{OwnedReadHalf, OwnedWriteHalf},
        },
        sync::{Semaphore, broadcast::error::RecvError},
    };

    use super::{Desk, Reply, Request, Selector, Summary, here};
    use crate::control::plan::Rehearsing;
    use crate::{
        config::Control,
        control::{
            peer::{self, Access, Group, Peer},
            protocol::MAX_LINE_BYTES,
        },
        store::private::{Exposed, make_dir, no_link},
    };

    /// Command lines served at once.
    const MAX_CLIENTS: usize = 32;
    /// Longest that somebody is listened to who may nothing.
    const LONGEST_REFUSAL: Duration = Duration::from_secs(5);
    /// How often a waiting command line is told how far it is.
    const TICK: Duration = Duration::from_millis(250);

    /// The socket, bound. Who connects while nobody serves it waits for the one who does next. Its path goes with it: a
    /// socket that nobody serves would look like a daemon that hangs.
    #[derive(Debug)]
    pub struct Door {
        listener: UnixListener,
        path: PathBuf,
        control: Control,
        group: Option<Group>,
    }

    impl Door {
        /// Binds it, for this user alone or for a group too. A socket left by a dead daemon is removed: the caller holds the
        /// lock of the state directory, so nobody else can be serving it. Anything else that lies there is refused.
        pub fn open(path: &Path, control: &Control) -> io::Result<Self> {
            let group = peer::group(control)?;
            if let Some(parent) = path.parent() {
                make_dir(parent)?;
                if let Some(group) = &group {
                    let_in(parent, group)?;
                }
            }
            no_link(path)?;
            match std::fs::symlink_metadata(path) {
                Ok(found) if found.file_type().is_socket() => std::fs::remove_file(path)?,
                Ok(_) => return Err(Exposed::Kind { path: path.to_owned(), expected: "socket" }.into()),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
            let door = Self { listener: UnixListener::bind(path)?, path: path.to_owned(), control: control.clone(), group };
            // Who came in between is asked who they are like everybody.
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
            if let Some(group) = &door.group {
                std::os::unix::fs::lchown(path, None, Some(group.gid)).map_err(|e| not_a_member(group, &e))?;
                std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
            }
            Ok(door)
        }

        /// Whether it was opened so.
        pub fn is(&self, path: &Path, control: &Control) -> bool {
            self.path == path && self.control == *control
        }

        /// Where it is.
        pub fn path(&self) -> &Path {
            &self.path
        }
    }

    /// Lets a group enter the socket's directory, where that is ours and shut to it.
    fn let_in(directory: &Path, group: &Group) -> io::Result<()> {
        let found = std::fs::metadata(directory)?;
        let enters = found.mode() & 0o001 != 0 || (found.gid() == group.gid && found.mode() & 0o010 != 0);
        if enters {
            return Ok(());
        }
        std::os::unix::fs::chown(directory, None, Some(group.gid)).map_err(|e| not_a_member(group, &e))?;
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(found.mode() & 0o7700 | 0o010))
    }

    fn not_a_member(group: &Group, error: &io::Error) -> io::Error {
        io::Error::other(format!("it cannot be given to the group {}, which the daemon's user has to be in: {error}", group.name))
    }

    impl Drop for Door {
        fn drop(&mut self) {
            // Gone already, or not ours to remove any more: there is nobody to tell.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Serves the socket until it is dropped.
    pub async fn serve(desk: Desk, door: &Door) {
        let places = Arc::new(Semaphore::new(MAX_CLIENTS));
        // SAFETY: a plain system call without arguments.
        let us = unsafe { libc::geteuid() };
        let group = door.group.clone().map(Arc::new);
        loop {
            let stream = match door.listener.accept().await {
                Ok((stream, _)) => stream,
                // Out of file descriptors, most likely: that passes.
                Err(error) => {
                    tracing::warn!(%error, "a command line could not be served");
                    tokio::time::sleep(TICK).await;
                    continue;
                }
            };
            let visitor = match peer::peer_of(&stream) {
                Ok(peer) => Visitor { access: peer.access(us, group.as_deref()), peer, us, group: group.clone() },
                Err(error) => {
                    tracing::warn!(%error, "a command line could not be served: the system does not say whose it is");
                    continue;
                }
            };
            if visitor.access == Access::Nothing {
                // Takes nobody's place.
                tracing::warn!("{} tried to talk to the daemon at {}, and may not", visitor.peer, door.path.display());
                tokio::spawn(tokio::time::timeout(LONGEST_REFUSAL, turn_away(visitor, stream)));
                continue;
            }
            let Ok(place) = places.clone().try_acquire_owned() else { continue };
            let desk = desk.clone();
            tokio::spawn(async move {
                // A command line that went away is nobody's fault.
                let _ = talk(desk, visitor, stream).await;
                drop(place);
            });
        }
    }

    /// Who is at the other end, and what they may.
    struct Visitor {
        peer: Peer,
        access: Access,
        us: u32,
        group: Option<Arc<Group>>,
    }

    impl Visitor {
        fn refusal(&self) -> Reply {
            peer::refusal(&self.peer, self.access, self.us, self.group.as_deref())
        }
    }

    /// Says why not. What was asked is read first: who closes a socket with unread words in it takes back what it said.
    async fn turn_away(visitor: Visitor, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        next_line(&mut read).await?;
        send(&mut write, &visitor.refusal()).await
    }

    async fn talk(desk: Desk, visitor: Visitor, stream: UnixStream) -> io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut read = BufReader::new(read);
        while let Some(line) = next_line(&mut read).await? {
            let request = match serde_json::from_slice::<Request>(&line) {
                Ok(request) => request,
                Err(error) => {
                    let refusal = Reply::Refused {
                        message: format!("the daemon does not understand the request: {error}"),
                        remedy: here("use the same version of whimbrel on both sides; restart the daemon after an update"),
                    };
                    send(&mut write, &refusal).await?;
                    continue;
                }
            };
            if peer::needs(&request) > visitor.access {
                send(&mut write, &visitor.refusal()).await?;
                continue;
            }
            match request {
                Request::Watch => return watch(desk, &mut write).await,
                Request::Plan { database, rehearse: true } => rehearse(&desk, database, &mut write).await?,
                Request::Order { wait: true, .. } => {
                    let accepted = answer(&desk, request).await;
                    send(&mut write, &accepted).await?;
                    if let Reply::Accepted { request_id } = accepted {
                        let summary = follow(&desk, request_id, &mut write).await?;
                        send(&mut write, &Reply::Finished { summary }).await?;
                    }
                }
                Request::Hello { .. }
                | Request::Status
                | Request::History { .. }
                | Request::Plan { rehearse: false, .. }
                | Request::Backups { .. }
                | Request::Adopt { .. }
                | Request::FailedItems { .. }
                | Request::Tables { .. }
                | Request::Conflicts { .. }
                | Request::Quarantine { .. }
                | Request::Order { .. }
                | Request::Outcome { .. }
                | Request::Doctor
                | Request::AppVersion { .. }
                | Request::Poll => send(&mut write, &answer(&desk, request).await).await?,
            }
        }
        Ok(())
    }

    /// Tells how far it is, and gives up when nobody listens any more.
    async fn rehearse(desk: &Desk, database: Selector, write: &mut OwnedWriteHalf) -> io::Result<()> {
        let rehearsing = Rehearsing::new(&desk.shared.halt);
        let mut work = {
            let (desk, rehearsing) = (desk.clone(), rehearsing.clone());
            tokio::task::spawn_blocking(move || desk.plan(&database, Some(&rehearsing)))
        };
        let mut last = None;
        loop {
            tokio::select! {
                plan = &mut work => return send(write, &plan.expect("a rehearsal does not panic")).await,
                () = tokio::time::sleep(TICK) => {
                    let now = rehearsing.now();
                    if now != last && let Some((database, now)) = now.clone()
                        && let Err(gone) = send(write, &Reply::Rehearsing { database, now: Box::new(now) }).await
                    {
                        rehearsing.give_up();
                        return Err(gone);
                    }
                    last = now;
                }
            }
        }
    }

    async fn answer(desk: &Desk, request: Request) -> Reply {
        let desk = desk.clone();
        tokio::task::spawn_blocking(move || desk.answer(request)).await.expect("an answer does not panic")
    }

    /// Shows how far it is until the order is done.
    async fn follow(desk: &Desk, id: whimbrel_shared::ids::RequestId, write: &mut OwnedWriteHalf) -> io::Result<Summary> {
        let mut last = None;
        loop {
            if let Reply::Outcome { summary: Some(summary) } = answer(desk, Request::Outcome { request_id: id }).await {
                return Ok(summary);
            }
            let snapshot = desk.snapshot();
            if last.as_ref() != Some(&snapshot) {
                send(write, &Reply::Status(Box::new(snapshot.clone()))).await?;
                last = Some(snapshot);
            }
            let mut picture = desk.picture.clone();
            // The loop that carries it out is gone (a stop, a reload): the order is kept, and the next loop takes it up. An
            // end without an outcome tells the command line so.
            if let Ok(Err(_)) = tokio::time::timeout(TICK, picture.changed()).await {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
        }
    }

    async fn watch(desk: Desk, write: &mut OwnedWriteHalf) -> io::Result<()> {
        let mut events = desk.events.subscribe();
        let mut picture = desk.picture.clone();
        let mut last = desk.snapshot();
        send(write, &Reply::Status(Box::new(last.clone()))).await?;
        loop {
            tokio::select! {
                // What a migration is doing changes without a new picture.
                () = tokio::time::sleep(TICK) => {
                    let snapshot = desk.snapshot();
                    if snapshot != last {
                        send(write, &Reply::Status(Box::new(snapshot.clone()))).await?;
                        last = snapshot;
                    }
                }
                event = events.recv() => match event {
                    Ok(event) => send(write, &Reply::Event(Box::new(event))).await?,
                    // Too slow for the events: the next picture says where things stand.
                    Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return Ok(()),
                },
                changed = picture.changed() => {
                    if changed.is_err() {
                        return Ok(());
                    }
                    last = desk.snapshot();
                    send(write, &Reply::Status(Box::new(last.clone()))).await?;
                }
            }
        }
    }

    async fn next_line(read: &mut BufReader<OwnedReadHalf>) -> io::Result<Option<Vec<u8>>> {
        let mut line = Vec::new();
        let n = (&mut *read).take(MAX_LINE_BYTES as u64).read_until(b'\n', &mut line).await?;
        Ok((n > 0).then_some(line))
    }

    async fn send(write: &mut OwnedWriteHalf, reply: &Reply) -> io::Result<()> {
        let mut line = serde_json::to_vec(reply)?;
        line.push(b'\n');
        write.write_all(&line).await
    }
}
