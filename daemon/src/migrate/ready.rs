//! Whether rows of a file can be exchanged, and at which version (DESIGN 4, invariant 1); and what a look does for it: the
//! tables are captured that have to be, lost triggers are made again, the journal is folded.

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError},
    time::Duration,
};

use rusqlite::Connection;
use whimbrel_shared::{
    columns::ColumnMap,
    manifest::Direction,
    protocol::state::{HealthItem, Severity},
    remedy::{Remedy, here, operator},
    status::{FailureClass, Status},
    synced::{Synced, SyncedTables},
};

use super::{
    chain::Chain,
    connection::Managed,
    error::{ApplyError, sqlite},
    files::LockFile,
    gate::item,
    tend::{is_tended, tend},
    transaction::{Terms, write},
    work::{LOOK_PATIENCE, Looked, Shared, Site},
};
use crate::{
    config,
    store::{checkpoint, journal, managed, settings},
    sync::{
        across,
        capture::{self, Wanted},
        classify::{Class, Judged, classify},
        fold::{Boot, Origin, fold},
        shape::{Captured, Mode},
    },
};

/// Longest that one look folds and compares. What is left is there at the next one.
const BUDGET: Duration = Duration::from_secs(5);
/// Between two comparisons of tables whose triggers cannot see everything.
const ROUTINE_MS: u64 = 3_600_000;

/// What a look found about rows.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Proof that rows may be exchanged, and how; none where they may not.
    pub ready: Option<Arc<SchemaReady>>,
    /// What is to be said of tables that cannot go both ways.
    pub health: Vec<HealthItem>,
}

/// Proof that the file stands at a version that it completed: history, schema and triggers agree, nothing is half done.
/// Only a look makes one. Who exchanges rows takes it as an argument, and asks [`Self::holds`] inside each transaction.
#[derive(Debug)]
pub struct SchemaReady {
    version: u32,
    map: ColumnMap,
    synced: SyncedTables,
    tables: BTreeMap<u32, Judged>,
    later: Option<Later>,
    schema_version: i64,
}

/// A later version that the file does not have yet: rows go on at the one that it has, but for the tables whose edits the
/// later one cannot take from there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Later {
    /// The newest version that is known.
    pub version: u32,
    /// Tables whose rows wait, with the oldest version from which they are taken.
    pub waiting: BTreeMap<u32, u32>,
}

impl SchemaReady {
    /// The version at which rows are exchanged.
    pub fn version(&self) -> u32 {
        self.version
    }

    /// Its tables and columns.
    pub fn map(&self) -> &ColumnMap {
        &self.map
    }

    /// Which of them exchange rows, and how.
    pub fn synced(&self) -> &SyncedTables {
        &self.synced
    }

    /// A later version that is known, and what it keeps back.
    pub fn later(&self) -> Option<&Later> {
        self.later.as_ref()
    }

    /// The table as it is in the file: how its rows are read, and how they land. Also of tables that are only pulled, which
    /// have no triggers. `None`: its rows are not exchanged, or cannot be.
    pub fn table(&self, id: u32) -> Option<&Captured> {
        self.tables.get(&id).and_then(|judged| judged.captured.as_ref())
    }

    /// Whether edits of a table are sent now.
    pub fn sends(&self, id: u32) -> bool {
        let said = |s: &Synced| matches!(s.direction, Direction::Both | Direction::Push);
        self.synced.table(id).is_some_and(said) && self.table(id).is_some() && self.waits(id).is_none()
    }

    /// Whether rows of a table land.
    pub fn lands(&self, id: u32) -> bool {
        let said = |s: &Synced| matches!(s.direction, Direction::Both | Direction::Pull);
        self.synced.table(id).is_some_and(said) && self.table(id).is_some_and(|captured| !captured.push_only)
    }

    /// The version that a table's edits wait for, where they wait.
    pub fn waits(&self, id: u32) -> Option<u32> {
        self.later.as_ref().and_then(|later| later.waiting.get(&id)).copied()
    }

    /// Whether it still is so: nobody changed the schema, and no migration was begun. Inside the transaction that relies
    /// on it.
    pub fn holds(&self, connection: &Connection) -> Result<bool, ApplyError> {
        Ok(schema_version(connection)? == self.schema_version
            && managed::intent(connection)?.is_none()
            && checkpoint::checkpoint(connection)?.is_none())
    }
}

/// What the last look found, so that the next one need not look again.
#[derive(Debug, Default)]
pub struct Seen {
    of: Option<Of>,
    found: Rows,
    /// Tables that are captured, and of these those that have to be looked through from time to time.
    captured: usize,
    unprobed: usize,
}

/// What it was found of.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Of {
    schema_version: i64,
    place: (u64, u64),
    position: u32,
    latest: u32,
    mode: Mode,
    drift: Vec<String>,
    busy: bool,
}

/// Looks after capture, and finds out whether rows can be exchanged. What cannot be done is said, and stops nothing else.
pub(super) fn look(shared: &Shared, site: &Site, file: &mut Managed, chain: &Chain, place: (u64, u64), looked: &Looked) -> Rows {
    match try_look(shared, site, file, chain, place, looked) {
        Ok(rows) => rows,
        Err(ApplyError::Cancelled | ApplyError::OtherRunner { .. }) => Rows::default(),
        Err(error) => {
            site.rows.lock().unwrap_or_else(PoisonError::into_inner).of = None;
            let severity = if error.class() == FailureClass::Transient { Severity::Warning } else { Severity::Error };
            let why = item(error.code(), severity, format!("edits could not be captured: {error}"), error.remedy());
            Rows { ready: None, health: vec![why] }
        }
    }
}

fn try_look(shared: &Shared, site: &Site, file: &mut Managed, chain: &Chain, place: (u64, u64), looked: &Looked) -> Result<Rows, ApplyError> {
    let mode = match site.rule.capture {
        config::Capture::Mask => Mode::Mask,
        config::Capture::KeyOnly => Mode::KeyOnly,
    };
    // By the file itself: of a chain that is not here any more nobody knows what is half done.
    let busy = checkpoint::checkpoint(&file.connection)?.is_some()
        || looked.history.values().any(|row| row.status == Status::Running)
        || managed::intent(&file.connection)?.is_some();
    let mut of = Of {
        schema_version: schema_version(&file.connection)?,
        place,
        position: looked.position,
        latest: chain.latest(),
        mode,
        drift: looked.drift.clone(),
        busy,
    };
    let mut seen = site.rows.lock().unwrap_or_else(PoisonError::into_inner);
    if seen.of.as_ref() != Some(&of) {
        *seen = find(shared, site, file, chain, &of)?;
        // Triggers that were made are a change of the schema too.
        of.schema_version = schema_version(&file.connection)?;
        seen.of = Some(of);
    }
    if seen.captured > 0 {
        let routine = seen.unprobed > 0 && is_time(shared, looked)?;
        if routine || !is_tended(file, &shared.ambient)? {
            tend(file, &shared.ambient, LOOK_PATIENCE, BUDGET, routine)?;
        }
    }
    Ok(seen.found.clone())
}

/// Whether tables are to be looked through again; then it is noted that they are.
fn is_time(shared: &Shared, looked: &Looked) -> Result<bool, ApplyError> {
    let (name, now_ms) = (settings::looked_through(looked.identity.client_id), shared.ambient.now_ms());
    let last = shared.store().setting(&name)?.and_then(|at| at.parse::<i64>().ok());
    let due = last.is_none_or(|last| now_ms.abs_diff(last) >= ROUTINE_MS);
    if due {
        shared.store().set_setting(&name, Some(&now_ms.to_string()))?;
    }
    Ok(due)
}

fn find(shared: &Shared, site: &Site, file: &mut Managed, chain: &Chain, of: &Of) -> Result<Seen, ApplyError> {
    let there = journal::is_there(&file.connection)?;
    let nothing = |captured: usize| Seen { captured, ..Seen::default() };
    // What a damaged chain says is said elsewhere; a chain without ids exchanges nothing.
    let rows = chain.rows_at(of.position).ok().filter(|_| of.position > 0);
    let known = rows.as_ref().and_then(|rows| Some((rows.map().ok()?, rows.synced().clone())));
    let Some((map, synced)) = known.filter(|(_, synced)| there || !synced.0.is_empty()) else {
        return Ok(nothing(if there { capture::captured(&file.connection)?.len() } else { 0 }));
    };
    if of.busy {
        // Half-way between two versions: what is captured stays captured, as the migration left it.
        return Ok(nothing(if there { capture::captured(&file.connection)?.len() } else { 0 }));
    }
    let wanted = across::wanted(&synced, &map, of.mode);
    let mut judged = judge(&file.connection, &map, &wanted)?;
    let lost = capture::check(&file.connection, &mut capture::Seen::default())?;
    let kept = if there { capture::captured(&file.connection)? } else { Vec::new() };
    let right: Vec<&Captured> = judged.values().filter_map(|j| j.captured.as_ref()).collect();
    if !lost.is_empty() || right != kept.iter().collect::<Vec<_>>() {
        for lost in &lost {
            tracing::warn!(database.path = %site.path.display(), table = lost.name, "capture was changed by somebody else and is made again: {}", lost.what);
        }
        if there && lost.is_empty() {
            tend(file, &shared.ambient, LOOK_PATIENCE, BUDGET, false)?;
        }
        // Nobody migrates meanwhile.
        let _lock = LockFile::hold(&site.path, Duration::ZERO, &shared.halt)?;
        let (boot, now_ms) = (shared.ambient.boot(), shared.ambient.now_ms());
        let (made, _) = write(file, Terms::ours(LOOK_PATIENCE), |file| install(&file.connection, &map, &wanted, &boot, now_ms))?;
        judged = made.into_iter().map(|j| (j.table, j)).collect();
    }
    let unprobed = judged.values().filter_map(|j| j.captured.as_ref()).filter(|c| !c.unprobed.is_empty()).count();
    let captured = judged.values().filter(|j| j.captured.is_some()).count();
    // Those that are only pulled have no triggers, and their rows land all the same.
    for id in synced.0.keys().filter(|id| !wanted.iter().any(|w| w.table == **id)) {
        let pulled = [Wanted { table: *id, mode: of.mode }];
        judged.extend(judge(&file.connection, &map, &pulled)?);
    }
    let health = judged.values().flat_map(|judged| said(judged, &synced)).collect();
    let drifts = |id: &u32| map.table_by_id(*id).is_some_and(|table| has_drift(&of.drift, &table.name));
    let ready = !synced.0.is_empty() && !synced.0.keys().any(drifts);
    let ready = ready.then(|| -> Result<_, ApplyError> {
        let later = later(chain, of.position, &synced);
        let schema_version = schema_version(&file.connection)?;
        Ok(Arc::new(SchemaReady { version: of.position, map, synced, tables: judged, later, schema_version }))
    });
    Ok(Seen { of: None, found: Rows { ready: ready.transpose()?, health }, captured, unprobed })
}

/// Captures what is to be captured. What was captured is folded as it was noted.
fn install(connection: &Connection, map: &ColumnMap, wanted: &[Wanted], boot: &Boot, now_ms: i64) -> Result<Vec<Judged>, ApplyError> {
    let lost = capture::check(connection, &mut capture::Seen::default())?;
    if journal::is_there(connection)? && journal::is_whole(connection)? {
        fold(connection, boot, Origin::App, now_ms, None)?;
    }
    if lost.is_empty() { Ok(capture::install(connection, map, wanted, now_ms)?) } else { Ok(capture::repair(connection, map, wanted, now_ms)?) }
}

fn judge(connection: &Connection, map: &ColumnMap, wanted: &[Wanted]) -> Result<BTreeMap<u32, Judged>, ApplyError> {
    let mut judged = BTreeMap::new();
    for Wanted { table, mode } in wanted {
        if let Some(columns) = map.table_by_id(*table) {
            judged.insert(*table, classify(connection, columns, *mode)?);
        }
    }
    Ok(judged)
}

/// What has to be said of a table whose rows cannot go as the manifest says.
fn said(judged: &Judged, synced: &SyncedTables) -> Vec<HealthItem> {
    let sent_only = synced.table(judged.table).is_some_and(|s| s.direction == Direction::Push);
    let reasons = judged.reasons.iter().filter(|reason| match reason.class {
        Class::ReadWrite => false,
        Class::PushOnly => !sent_only,
        Class::Unsupported => true,
    });
    let each = |reason: &crate::sync::classify::Reason| {
        let (code, severity, what) = match reason.class {
            Class::Unsupported => ("rows_unsupported", Severity::Error, "its rows are not exchanged"),
            Class::PushOnly | Class::ReadWrite => ("rows_push_only", Severity::Warning, "rows of others do not land in it"),
        };
        let remedy: Remedy = if reason.remedy.contains("publish") { operator(reason.remedy.clone()) } else { here(reason.remedy.clone()) };
        item(code, severity, format!("table {}: {what}: {}", judged.name, reason.why), remedy)
    };
    reasons.map(each).collect()
}

/// Whether drift, as it is told object by object, is about a table.
fn has_drift(drift: &[String], table: &str) -> bool {
    let object = format!("table {} ", table.to_ascii_lowercase());
    drift.iter().any(|line| line.starts_with(&object))
}

fn later(chain: &Chain, position: u32, synced: &SyncedTables) -> Option<Later> {
    let version = chain.latest();
    let newest = chain.rows_at(version).ok().filter(|_| version > position)?;
    let least = |id: &u32| newest.synced().table(*id).map(|s| s.min_schema).filter(|least| *least > position);
    Some(Later { version, waiting: synced.0.keys().filter_map(|id| Some((*id, least(id)?))).collect() })
}

fn schema_version(connection: &Connection) -> Result<i64, ApplyError> {
    connection
        .prepare_cached("PRAGMA main.schema_version")
        .and_then(|mut s| s.query_row([], |row| row.get(0)))
        .map_err(sqlite("reading the schema version"))
}
