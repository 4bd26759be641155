//! One database, from the outside in: look at it (who it is, where it stands, what a crash left), then advance it. Runs
//! off the async threads; everything it learns goes back as values.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use whimbrel_shared::{
    fingerprint::Schema,
    ids::{ClientId, Digest},
    manifest::DropPolicy,
    protocol::{
        poll::Order,
        state::{HealthItem, Severity},
    },
    remedy::{here, wait},
    status::{AskedBy, Event, EventKind, FailureClass, Operation, Status},
    trust::VerifiedMigration,
};

use super::{
    adopt,
    apply::{self, Job, Policy, Ran},
    arrived,
    backup::{self, Shelf, witness::Witness},
    chain::Chain,
    connection::{Managed, Missing},
    error::{ApplyError, sqlite},
    estimate::{Estimate, estimate},
    files::{self, LockFile, NotOurs, Recognised},
    gate::{self, Known, item, unusable},
    halt::Halt,
    live::Live,
    passage,
    plan::{self, History, Next, Wish},
    ready, recover,
    speed::Speed,
    standing::{HalfDone, half_done},
    transaction::{Terms, write},
};
use crate::{
    ambient::Ambient,
    config::DatabaseRule,
    store::{
        StoreError, checkpoint,
        device::{DeviceStore, KnownDatabase},
        managed::{self, FileIdentity, MigrationRow},
        private, settings,
    },
    sync::standing::{self, Standing},
    trust,
};

/// How long a look waits for the application: a look can be had again.
pub(super) const LOOK_PATIENCE: Duration = Duration::from_secs(2);
/// Events copied in one transaction.
const EVENTS_AT_ONCE: u32 = 500;

/// What all databases of a device share.
#[derive(Clone, Debug)]
pub struct Shared {
    /// `device.db`.
    pub store: Arc<Mutex<DeviceStore>>,
    /// The daemon's own directory.
    pub state_dir: PathBuf,
    /// Clock and dice.
    pub ambient: Ambient,
    /// How migrations are run.
    pub policy: Policy,
    /// How all of it is stopped.
    pub halt: Halt,
    /// Where backups are kept.
    pub shelf: Shelf,
}

impl Shared {
    /// The store, for a moment.
    pub fn store(&self) -> MutexGuard<'_, DeviceStore> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A database of this device.
#[derive(Clone, Debug)]
pub struct Site {
    /// The file.
    pub path: PathBuf,
    /// The configuration that names it.
    pub rule: DatabaseRule,
    /// What is being done with it now.
    pub live: Live,
    /// What was found at the last look, to be compared cheaply.
    pub seen: Arc<Mutex<Option<Seen>>>,
    /// The connection that has been open since the newest backup.
    pub witness: Witness,
    /// What was found about its rows at the last look.
    pub rows: Arc<Mutex<ready::Seen>>,
}

impl Site {
    /// A database that nobody has looked at yet.
    pub fn new(path: PathBuf, rule: DatabaseRule) -> Self {
        Self { path, rule, live: Live::default(), seen: Arc::default(), witness: Witness::default(), rows: Arc::default() }
    }
}

/// A fingerprint, and what it was taken of.
#[derive(Clone, Debug)]
pub struct Seen {
    schema_version: i64,
    place: (u64, u64),
    position: u32,
    latest: u32,
    fingerprint: Option<Digest>,
    drift: Vec<String>,
}

/// What a look found.
#[derive(Clone, Debug)]
pub struct Looked {
    /// Who it is.
    pub identity: FileIdentity,
    /// Every migration that was ever begun.
    pub history: History,
    /// Highest version in place.
    pub position: u32,
    /// Fingerprint of the chain's objects; none where the chain was published without a rehearsal.
    pub fingerprint: Option<Digest>,
    /// How they differ from what the chain left behind.
    pub drift: Vec<String>,
    /// The online migration that was begun and is not done.
    pub half_done: Option<HalfDone>,
    /// Whether rows can be exchanged, and what is to be said of their tables.
    pub rows: ready::Rows,
    /// How its rows stand; none where it exchanges none.
    pub standing: Option<Standing>,
}

/// Looks at a database: who it is, what a crash left, where it stands. Its events are copied to `device.db`. The error
/// is what `status` shows; the file is as it was.
pub fn look(shared: &Shared, site: &Site, chain: &Chain, missing: Missing) -> Result<Looked, HealthItem> {
    if missing == Missing::Refuse && is_missing(&site.path) {
        return Err(item("no_file", Severity::Info, format!("{} is not there yet", site.path.display()), wait("it is looked for again by itself")));
    }
    if std::fs::symlink_metadata(&site.path).is_ok() {
        match files::may_open(&site.path) {
            Ok(Ok(())) => {}
            Ok(Err(why)) => return Err(not_ours(&why)),
            Err(error) => {
                return Err(unusable("cannot_open", &site.path, error, here("let the daemon's user read and write the file and its directory")));
            }
        }
    }
    if let (Ok(place), Ok(Some(marked))) = (files::place(&site.path), shared.store().setting(&settings::damaged(&site.path)))
        && marked == format!("{place:?}")
    {
        let damaged = ApplyError::Damaged("it was found damaged before, and is left alone".to_owned());
        return Err(item(damaged.code(), Severity::Error, format!("{}: {damaged}", site.path.display()), damaged.remedy()));
    }
    if shared.store().setting(&settings::detached(&site.path)).is_ok_and(|marked| marked.is_some()) {
        let message = format!("{} was detached, and is left alone", site.path.display());
        let remedy = here("remove it from the configuration; `whimbrel retry FILE` takes it up again");
        return Err(item("detached", Severity::Info, message, remedy));
    }
    look_inside(shared, site, chain, missing).map_err(|error| {
        let code = error.code();
        let severity = if error.class() == FailureClass::Transient { Severity::Warning } else { Severity::Error };
        item(code, severity, format!("{}: {error}", site.path.display()), error.remedy())
    })
}

/// Whether there is no database at `path` yet: no file, or one that its application has opened and not written to.
pub fn is_missing(path: &Path) -> bool {
    // A link is never followed, so it is something, wherever it leads.
    std::fs::symlink_metadata(path).map_or(true, |m| m.is_file() && m.len() == 0)
}

fn not_ours(why: &NotOurs) -> HealthItem {
    match why {
        NotOurs::Owner { .. } => item(
            "owner",
            Severity::Error,
            why.to_string(),
            here("run whimbrel as the file's owner (a user unit, or whimbrel@USER.service), or share the file through a set-gid group directory"),
        ),
        NotOurs::Link(link) => item("link", Severity::Error, why.to_string(), link.remedy()),
        NotOurs::Network { .. } => item("network_file_system", Severity::Error, why.to_string(), here("move the database to a local disk")),
    }
}

fn look_inside(shared: &Shared, site: &Site, chain: &Chain, missing: Missing) -> Result<Looked, ApplyError> {
    let mut file = Managed::open(&site.path, missing, LOOK_PATIENCE, shared.halt.clone())?;
    // The first read tells whether it is a database at all, before anything is written.
    let place = files::place(&site.path).map_err(|source| ApplyError::Lock { path: site.path.clone(), source })?;
    if !managed::is_prepared(&file.connection)? {
        let _lock = LockFile::hold(&site.path, LOOK_PATIENCE, &shared.halt)?;
        let identity = files::new_identity(ClientId::from_dice(shared.ambient.dice()), &site.rule.app, place);
        write(&mut file, Terms::ours(LOOK_PATIENCE), |file| Ok(managed::prepare(&file.connection, &identity)?))?;
    }
    let identity = recognise(shared, site, &mut file, place)?;

    if managed::intent(&file.connection)?.is_some() {
        // Nobody holds the lock file: somebody died. Somebody holds it: they are at work, and what they do is theirs.
        match LockFile::hold(&site.path, Duration::ZERO, &shared.halt) {
            Ok(_lock) => {
                let ours = site.live.left_intent.swap(false, Ordering::Relaxed);
                if let Some(failure) = recover::recover(&mut file, &identity, chain, &shared.ambient, shared.policy, ours)? {
                    tracing::error!(database.path = %site.path.display(), "{}", failure.message);
                } else if !ours {
                    tracing::warn!(database.path = %site.path.display(), "taking up what an interrupted run left behind");
                }
            }
            Err(ApplyError::OtherRunner { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    copy_events(shared, site, &file, &identity)?;
    let history = managed::history(&file.connection)?;
    let position = plan::position(&history);
    let (fingerprint, drift) = fingerprint(site, &mut file, chain, place, position)?;
    let load = |version, revision| trust::load(&shared.store(), &site.rule.app, version, revision);
    // A chain that is not here any more says so elsewhere.
    let half_done = half_done(&mut file, &load).unwrap_or_default();
    let mut looked = Looked { identity, history, position, fingerprint, drift, half_done, rows: ready::Rows::default(), standing: None };
    looked.rows = ready::look(shared, site, &mut file, chain, place, &looked);
    looked.standing = standing::read(&file.connection)?;
    Ok(looked)
}

/// Compares what the file says with what the daemon remembers, and gives it a new epoch or a new client id.
fn recognise(shared: &Shared, site: &Site, file: &mut Managed, place: (u64, u64)) -> Result<FileIdentity, ApplyError> {
    let found = managed::identity(&file.connection)?;
    if let Some(new) = arrived::decided(shared, site, found.client_id)? {
        return take_new(shared, site, file, &found, files::new_identity(new, &found.app, place));
    }
    let known: Option<KnownDatabase> = shared.store().databases()?.into_iter().find(|k| k.identity.client_id == found.client_id);
    if known.is_none() && (found.device, found.inode) != place {
        arrived::remember(shared, site, file, &found)?;
    }
    // A moved file left its old place; a copied one did not, and there the same id still lies.
    let other_is_there = known
        .as_ref()
        .is_some_and(|k| k.path != site.path && files::place(&k.path).is_ok_and(|p| p != place) && client_id_at(&k.path) == Some(found.client_id));
    let last_event_is_there = match known.as_ref().and_then(|k| k.copied_id.as_ref().map(|id| (k.copied_seq, id))) {
        Some((seq, id)) => managed::event_is(&file.connection, seq, id)?,
        None => true,
    };
    let mut identity = found.clone();
    (identity.device, identity.inode) = place;
    // The file is a backup that was brought back: its history went back too, whatever its last event says.
    let restored = managed::backup_mark(&file.connection)?.is_some();
    match files::recognise(known.as_ref(), &site.path, other_is_there, last_event_is_there && !restored) {
        Recognised::Same => {}
        Recognised::WentBack => {
            identity.epoch = known.as_ref().map_or(found.epoch, |k| k.identity.epoch.max(found.epoch)) + 1;
            tracing::warn!(database.path = %site.path.display(), epoch = identity.epoch, "the file went back to an older state");
        }
        Recognised::Clone => {
            identity = files::new_identity(ClientId::from_dice(shared.ambient.dice()), &found.app, place);
            tracing::warn!(database.path = %site.path.display(), client_id = %identity.client_id, "the file is a copy of another database; it gets a client id of its own");
        }
    }
    if identity.app != site.rule.app {
        return Err(ApplyError::Moved(format!("the file belongs to the app {}, and the configuration says {}", identity.app, site.rule.app)));
    }
    if identity != found || restored {
        let _lock = LockFile::hold(&site.path, LOOK_PATIENCE, &shared.halt)?;
        write(file, Terms::ours(LOOK_PATIENCE), |file| {
            managed::set_backup_mark(&file.connection, None)?;
            Ok(managed::set_identity(&file.connection, &identity)?)
        })?;
    }
    let copied = known.filter(|k| identity.client_id == k.identity.client_id && identity.epoch == k.identity.epoch);
    let (copied_seq, copied_id) = match copied {
        Some(known) if known.path == site.path && known.identity == identity => return Ok(identity),
        Some(known) => (known.copied_seq, known.copied_id),
        // A copy's events are its original's, who reports them.
        None if identity.client_id != found.client_id => managed::last_event(&file.connection)?.map_or((0, None), |(seq, id)| (seq, Some(id))),
        None => (0, None),
    };
    shared.store().put_database(&KnownDatabase { identity: identity.clone(), path: site.path.clone(), copied_seq, copied_id })?;
    Ok(identity)
}

/// Writes an identity that `device.db` has already into the file.
fn take_new(shared: &Shared, site: &Site, file: &mut Managed, found: &FileIdentity, identity: FileIdentity) -> Result<FileIdentity, ApplyError> {
    {
        let _lock = LockFile::hold(&site.path, LOOK_PATIENCE, &shared.halt)?;
        write(file, Terms::ours(LOOK_PATIENCE), |file| Ok(managed::set_identity(&file.connection, &identity)?))?;
    }
    shared.store().set_setting(&settings::arrived(found.client_id), None)?;
    Ok(identity)
}

/// The client id that lies in another file, without touching it.
fn client_id_at(path: &Path) -> Option<ClientId> {
    let connection = private::open_database(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).ok()?;
    managed::identity(&connection).ok().map(|i| i.client_id)
}

/// Copies what is new in the file's history to `device.db`, where it is a report until the server has it.
pub(super) fn copy_events(shared: &Shared, site: &Site, file: &Managed, identity: &FileIdentity) -> Result<(), ApplyError> {
    let known = shared.store().databases()?.into_iter().find(|k| k.identity.client_id == identity.client_id);
    let mut seq = known.map_or(0, |k| k.copied_seq);
    loop {
        let events: Vec<(i64, Event)> = managed::events_after(&file.connection, identity, seq, EVENTS_AT_ONCE)?;
        let Some((last, event)) = events.last() else { return Ok(()) };
        seq = *last;
        let id = Some(event.event_id.to_string());
        let known = KnownDatabase { identity: identity.clone(), path: site.path.clone(), copied_seq: seq, copied_id: id };
        shared.store().atomically(|store| {
            store.copy_events(&events)?;
            store.put_database(&known)
        })?;
    }
}

/// The fingerprint of the chain's objects, taken only when something may have changed it.
fn fingerprint(
    site: &Site,
    file: &mut Managed,
    chain: &Chain,
    place: (u64, u64),
    position: u32,
) -> Result<(Option<Digest>, Vec<String>), ApplyError> {
    let schema_version: i64 =
        file.connection.pragma_query_value(None, "schema_version", |row| row.get(0)).map_err(sqlite("reading the schema version"))?;
    let mut seen = site.seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(seen) = seen.as_ref()
        && (seen.schema_version, seen.place, seen.position, seen.latest) == (schema_version, place, position, chain.latest())
    {
        return Ok((seen.fingerprint, seen.drift.clone()));
    }
    let (mut digest, mut drift) = (None, Vec::new());
    // An online migration that is under way left its own state behind, known by name.
    let within = checkpoint::checkpoint(&file.connection)?.filter(|at| at.version == position + 1);
    let known = match &within {
        Some(at) => chain.schema_within(at.version, at.revision, at.schemas),
        None => chain.schema_at(position).filter(|_| position > 0),
    };
    if let Some(expected) = known {
        file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
        drift = expected.drift(file.schema.schema());
        digest = Some(Schema::digest(&expected.restricted(file.schema.schema())));
    }
    *seen = Some(Seen { schema_version, place, position, latest: chain.latest(), fingerprint: digest, drift: drift.clone() });
    Ok((digest, drift))
}

/// What is to be done with a database, decided.
#[derive(Clone, Debug, Default)]
pub struct Task {
    /// The server's plan.
    pub order: Option<Order>,
    /// A person's word.
    pub wish: Option<Wish>,
    /// Whether a failure is to be cleared first.
    pub retry: bool,
    /// Whether `verify` steps are left out.
    pub skip_verify: bool,
    /// What the gates look at.
    pub known: Known,
}

/// How it went.
#[derive(Debug, Default)]
pub struct Advanced {
    /// What was run.
    pub ran: Ran,
    /// Why it stands still, if it does.
    pub health: Vec<HealthItem>,
}

/// One migration that would run, with what it costs.
#[derive(Clone, Debug)]
pub struct Planned {
    /// Its version.
    pub version: u32,
    /// Which way.
    pub operation: Operation,
    /// What it costs.
    pub estimate: Estimate,
    /// Whether it asks for a backup before it runs.
    pub backup: bool,
}

/// What would run now, and what stands before it. Writes nothing.
pub fn preview(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, task: &Task) -> Result<(Vec<Planned>, Vec<HealthItem>), ApplyError> {
    let mut history = looked.history.clone();
    if task.retry {
        history.retain(|_, row| row.status != Status::Failed);
        history.values_mut().for_each(|row| row.failure = None);
    }
    let (operation, from, to) = match plan::next(&history, chain, task.order, task.wish) {
        Next::Nothing => return Ok((Vec::new(), Vec::new())),
        Next::Stopped(why) => return Ok((Vec::new(), vec![why])),
        Next::Run { operation, from, to, by: _ } => (operation, from, to),
    };
    let mut closed = gate::database_gates(&task.known, operation);
    if !looked.drift.is_empty() {
        closed.push(drift_item(looked));
    }
    let mut file = Managed::open(&site.path, Missing::Refuse, LOOK_PATIENCE, shared.halt.clone())?;
    // With the chain as it is now: what was looked at may have been looked at before there was one.
    closed.extend(adopt::first(&mut file, chain, &history)?.filter(|_| operation == Operation::Apply));
    let mut known = task.known.clone();
    let speed = Speed::from_text(shared.store().setting(settings::SPEED)?.as_deref());
    let withdrawn = if operation == Operation::Apply { shared.store().withdrawn(&site.rule.app)? } else { Vec::new() };
    let mut planned = Vec::new();
    let mut version = from;
    loop {
        let revision = match (operation, history.get(&version)) {
            (Operation::Revert, Some(row)) => row.revision,
            (Operation::Apply | Operation::Revert, _) => chain.newest(version).map_or(1, |e| e.custom.revision),
        };
        let verified = trust::load(&shared.store(), &site.rule.app, version, revision)?;
        let estimate = estimate(&file.connection, verified.migration(), operation, &speed);
        let mut gates = gate::migration_gates(&known, verified.link(), verified.migration(), operation, &estimate);
        gates.extend(unsent(&file, chain, operation, &verified)?);
        gates.extend(withdrawn.contains(&(version, revision)).then(|| gate::withdrawn(verified.link())));
        // What comes before it in this run needs its room too.
        known.free_bytes = known.free_bytes.map(|free| free.saturating_sub(estimate.write_bytes));
        planned.push(Planned { version, operation, estimate, backup: backup::is_wanted(verified.migration()) });
        if !gates.is_empty() {
            closed.extend(gates);
            break;
        }
        if version == to {
            break;
        }
        version = match operation {
            Operation::Apply => version + 1,
            Operation::Revert => version - 1,
        };
    }
    Ok((planned, closed))
}

/// Edits that have to be sent before a migration runs, as far as they are folded; the migration itself looks again.
fn unsent(file: &Managed, chain: &Chain, operation: Operation, migration: &VerifiedMigration) -> Result<Option<HealthItem>, ApplyError> {
    let carry = &migration.migration().manifest.carry;
    let blocks = carry.iter().any(|c| c.gone == Some(DropPolicy::Block) || c.drop.values().any(|policy| *policy == DropPolicy::Block))
        || migration.link().sync.stopped.iter().any(|(_, policy)| *policy == DropPolicy::Block);
    if !blocks {
        return Ok(None);
    }
    let waits = passage::waits_for(file, chain, operation, migration)?.map(ApplyError::from);
    Ok(waits.map(|why| item(why.code(), Severity::Warning, format!("{}: {why}", migration.link().name), why.remedy())))
}

fn drift_item(looked: &Looked) -> HealthItem {
    let drift = ApplyError::Drift { drift: looked.drift.clone() };
    item(drift.code(), Severity::Error, drift.to_string(), drift.remedy())
}

/// Runs what is to be run.
pub fn advance(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, task: &Task) -> Advanced {
    let mut advanced = Advanced::default();
    if let Err(error) = try_advance(shared, site, looked, chain, task, &mut advanced) {
        let severity = if error.class() == FailureClass::Transient { Severity::Warning } else { Severity::Error };
        advanced.health.push(item(error.code(), severity, error.to_string(), error.remedy()));
        advanced.ran.stopped.get_or_insert_with(|| apply::Stopped {
            version: looked.position + 1,
            name: None,
            failure: error.failure(),
            disk_full: error.is_disk_full(),
        });
    }
    site.live.set(super::live::Phase::Idle);
    advanced
}

fn try_advance(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, task: &Task, out: &mut Advanced) -> Result<(), ApplyError> {
    let (planned, mut closed) = preview(shared, site, looked, chain, task)?;
    // Gates stand before the last planned one: what comes before that may run.
    let open = if closed.is_empty() { planned.len() } else { planned.len().saturating_sub(1) };
    let whole = closed.iter().any(|g| matches!(g.code.as_str(), "held" | "window" | "drift" | "adopt_first"));
    let (Some(first), Some(last)) = (planned.first(), planned[..if whole { 0 } else { open }].last()) else {
        out.health.append(&mut closed);
        return Ok(());
    };
    out.health.append(&mut closed);

    site.live.set(super::live::Phase::Waiting);
    let wait = shared.policy.wait_for_app;
    site.live.hold.store(false, Ordering::Relaxed);
    // Read again, after the switch was reset: a hold that came while this database waited for its turn counts.
    let held = shared.store().holds(shared.ambient.now_ms())?.get(&looked.identity.client_id).copied();
    if let Some(until) = held.filter(|_| !matches!(task.wish, Some(Wish::RevertDownTo(_) | Wish::TakeBack(_)))) {
        if !out.health.iter().any(|h| h.code == "held") {
            out.health.push(gate::held(until));
        }
        return Ok(());
    }
    let halt = Halt { hold: site.live.hold.clone(), ..shared.halt.clone() };
    let _lock = LockFile::hold(&site.path, wait, &halt)?;
    let (mut file, since) = site.witness.open(&site.path, wait, halt)?;
    site.live.watch(file.patience.clone());
    if task.retry {
        clear_failure(shared, &mut file, looked)?;
    }
    let since = backup::before_run(shared, site, &mut file, since, looked, chain, &planned[..open])?;
    let load = |version, revision| trust::load(&shared.store(), &site.rule.app, version, revision);
    let by = if task.wish.is_some() { AskedBy::Person } else { AskedBy::Plan };
    let job = Job {
        identity: &looked.identity,
        chain,
        load: &load,
        operation: first.operation,
        from: first.version,
        to: last.version,
        by,
        policy: Policy { skip_verify: task.skip_verify, ..shared.policy },
        ambient: &shared.ambient,
        live: &site.live,
    };
    let begun = Instant::now();
    out.ran = apply::run(&mut file, &job);
    if let ([only], [_]) = (&planned[..open], out.ran.done.as_slice()) {
        remember_speed(shared, &only.estimate, out.ran.longest_hold, begun.elapsed())?;
    }
    site.live.left_intent.store(out.ran.left_intent, Ordering::Relaxed);
    if let Some(stopped) = &out.ran.stopped
        && stopped.failure.class == FailureClass::Corrupt
    {
        drop(file);
        // Nothing is written into it any more, until a person says that it is mended.
        if let Ok(place) = files::place(&site.path) {
            shared.store().set_setting(&settings::damaged(&site.path), Some(&format!("{place:?}")))?;
        }
        set_aside(shared, &site.path, &looked.identity);
        return Ok(());
    }
    copy_events(shared, site, &file, &looked.identity)?;
    site.witness.keep(&site.path, file, since);
    Ok(())
}

/// What the next estimate on this device goes by. Of a run of several nobody knows which of them took how long.
fn remember_speed(shared: &Shared, estimate: &Estimate, longest_hold: Duration, took: Duration) -> Result<(), StoreError> {
    let store = shared.store();
    let mut speed = Speed::from_text(store.setting(settings::SPEED)?.as_deref());
    if speed.saw(estimate, longest_hold, took) { store.set_setting(settings::SPEED, Some(&speed.to_text())) } else { Ok(()) }
}

/// A person (or nobody but a new revision) lets a failed migration have another try.
fn clear_failure(shared: &Shared, file: &mut Managed, looked: &Looked) -> Result<(), ApplyError> {
    let now_ms = shared.ambient.now_ms();
    let failed: Vec<MigrationRow> = looked.history.values().filter(|r| r.status == Status::Failed || r.failure.is_some()).cloned().collect();
    if failed.is_empty() {
        return Ok(());
    }
    write(file, Terms::ours(shared.policy.wait_for_app), |file| {
        for row in &failed {
            // A failed revert left its migration in place.
            let status = if row.status.is_in_place() { row.status } else { Status::Pending };
            managed::put_migration(&file.connection, &MigrationRow { status, failure: None, ..row.clone() })?;
            managed::append_event(
                &file.connection,
                &Event {
                    event_id: shared.ambient.event_id(),
                    client_id: looked.identity.client_id,
                    app: looked.identity.app.clone(),
                    kind: EventKind::Retried,
                    operation: Operation::Apply,
                    migration: row.name.clone(),
                    version: row.version,
                    revision: row.revision,
                    digest: row.digest,
                    status,
                    attempt: row.attempts,
                    by: AskedBy::Person,
                    at_ms: now_ms,
                    took_ms: None,
                    failure: None,
                    fingerprint: None,
                    rows: None,
                    verify_skipped: false,
                },
            )?;
        }
        managed::count_crash(&file.connection, None)?;
        Ok(())
    })?;
    Ok(())
}

/// Keeps a copy of a damaged file, once, for whoever has to find out. The file itself is left as it is.
fn set_aside(shared: &Shared, path: &Path, identity: &FileIdentity) {
    let directory = shared.state_dir.join("damaged").join(identity.client_id.to_string());
    if directory.exists() {
        return;
    }
    let copied = crate::store::private::make_private_dir(&directory).and_then(|()| {
        let name = path.file_name().unwrap_or_default().to_owned();
        let names = ["", "-wal", "-journal"].map(|suffix| {
            let mut name = name.clone();
            name.push(suffix);
            name
        });
        names.iter().try_for_each(|name| {
            let from = path.with_file_name(name);
            if from.exists() { std::fs::copy(from, directory.join(name)).map(|_| ()) } else { Ok(()) }
        })
    });
    match copied {
        Ok(()) => tracing::error!(database.path = %path.display(), copy = %directory.display(), "the file is damaged; a copy is kept"),
        Err(error) => tracing::error!(database.path = %path.display(), %error, "the file is damaged, and a copy could not be kept"),
    }
}

/// The files that a rule names now, in order.
pub fn expand(rule: &DatabaseRule) -> BTreeSet<PathBuf> {
    if !rule.is_pattern() {
        return BTreeSet::from([PathBuf::from(&rule.path)]);
    }
    let ours = |path: &PathBuf| {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        path.is_file() && !["-wal", "-shm", "-journal", "-whimbrel-lock"].iter().any(|suffix| name.ends_with(suffix))
    };
    match glob::glob(&rule.path) {
        Ok(paths) => paths.filter_map(Result::ok).filter(ours).collect(),
        Err(_) => BTreeSet::new(),
    }
}

#[cfg(test)]
#[path = "work_tests.rs"]
mod tests;
