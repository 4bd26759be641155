//! What goes over the control socket, and what `--json` prints: stable, versioned, golden-tested.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Deserializer, Serialize};
use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, MigrationName, RequestId},
    protocol::{poll::Order, state::HealthItem},
    remedy::Remedy,
    status::{Event, Failure, Status},
    value::Value,
};

use crate::{
    migrate::{backup::Backup, items::Retried, live::Picture, rehearse::Rehearsal, standing::HalfDone, tables::TableSize},
    replicate::Replicated,
    sync::{decide::Choice, detach::Left, standing::Standing, verify::VerifiedTable},
};

/// Number of this protocol. A command line and a daemon one apart understand each other.
pub const CONTROL_PROTOCOL: u32 = 1;
/// Longest request or reply line, in bytes.
pub const MAX_LINE_BYTES: usize = 16 * 1024 * 1024;

/// Which databases a request is about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Selector(
    /// Path, file name, or the beginning of a client id; none means all.
    pub Option<String>,
);

/// What the command line asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "snake_case")]
pub enum Request {
    /// Who is there. Answered with [`Reply::Hello`].
    Hello {
        /// [`CONTROL_PROTOCOL`] of the asking side.
        protocol: u32,
    },
    /// [`Reply::Status`].
    Status,
    /// A stream of [`Reply::Status`] whenever something changed, and of [`Reply::Event`].
    Watch,
    /// [`Reply::History`].
    History {
        /// Which databases.
        database: Selector,
        /// At most so many.
        limit: u32,
    },
    /// [`Reply::FailedItems`].
    FailedItems {
        /// Which databases.
        database: Selector,
        /// At most so many.
        limit: u32,
    },
    /// [`Reply::Tables`]. Takes some seconds for a large file.
    Tables {
        /// Which databases.
        database: Selector,
    },
    /// [`Reply::Plan`]: what would happen. Writes nothing into a database. With `rehearse`, [`Reply::Rehearsing`] comes
    /// before it while a private copy goes through what is pending.
    Plan {
        /// Which databases.
        database: Selector,
        /// Whether it is tried on a private copy.
        #[serde(default)]
        rehearse: bool,
    },
    /// [`Reply::Backups`].
    Backups {
        /// Which databases.
        database: Selector,
    },
    /// [`Reply::Adopt`]: what there is to take over. Writes nothing.
    Adopt {
        /// Which databases.
        database: Selector,
    },
    /// [`Reply::Accepted`], then, with `wait`, [`Reply::Status`] while it works and [`Reply::Finished`].
    Order {
        /// Which databases.
        database: Selector,
        /// What is wanted.
        order: PersonOrder,
        /// Whether to stay until it is done.
        wait: bool,
    },
    /// [`Reply::Conflicts`].
    Conflicts {
        /// Which databases.
        database: Selector,
        /// Only the one with this number.
        id: Option<i64>,
        /// Also those that wait for nobody.
        all: bool,
        /// At most so many.
        limit: u32,
    },
    /// [`Reply::Quarantine`].
    Quarantine {
        /// Which databases.
        database: Selector,
        /// At most so many.
        limit: u32,
    },
    /// [`Reply::Outcome`] of an earlier order.
    Outcome {
        /// Its id.
        request_id: RequestId,
    },
    /// [`Reply::Doctor`].
    Doctor,
    /// Remember the application's build. [`Reply::Done`].
    AppVersion {
        /// The app.
        app: AppName,
        /// Its version.
        version: Option<String>,
        /// Version of its SQLite library.
        sqlite: Option<String>,
    },
    /// Look at the server now. [`Reply::Done`].
    Poll,
}

/// What a person wants done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum PersonOrder {
    /// Apply what is pending now, whatever the window says; up to a migration, or all that the plan allows.
    Apply {
        /// Name or version of the last one.
        to: Option<String>,
        /// Whether `verify` steps are left out.
        #[serde(default)]
        skip_verify: bool,
    },
    /// Clear a failure and try again.
    Retry,
    /// Try the rows again that steps left out.
    RetryItems,
    /// Revert one migration and all after it, or down to a version; then hold the database.
    Revert {
        /// Name of the migration that is to go.
        migration: Option<String>,
        /// The version to stay at.
        to: Option<u32>,
    },
    /// Apply nothing until released, or until a time (milliseconds since 1970).
    Hold {
        /// When it ends by itself.
        until_ms: Option<i64>,
    },
    /// End a hold.
    Release,
    /// Take over what another tool, or a person, did before.
    Adopt {
        /// Name or version of the last migration that is in place, as a person says it; none leaves it to the trackers and
        /// the schema. `0` says that none is.
        version: Option<String>,
        /// Whether a schema that differs from that version's is taken as it is.
        accept_drift: bool,
    },
    /// Take that back, and hold the database.
    GiveBack,
    /// One cycle now, as `run --once` does one: windows and gates count as ever.
    Cycle,
    /// Exchange rows now.
    Exchange {
        /// Whether both sides are compared after it.
        verify: bool,
    },
    /// Decide a conflict.
    Decide {
        /// Its number in its database.
        conflict: i64,
        /// How.
        choice: Choice,
    },
    /// Try the rows in quarantine again.
    RetryWaiting,
    /// Do without a row in quarantine.
    DropWaiting {
        /// Its table, by name.
        table: String,
        /// Its key: a text per column.
        key: Vec<String>,
    },
    /// Remove everything of whimbrel's from the file, and leave it alone from then on.
    Detach {
        /// Whether what says which migrations were applied stays.
        keep_history: bool,
    },
    /// Make a backup.
    Backup,
    /// Go back to a backup, and hold the database there.
    Restore {
        /// Which; asked without one, the newest, and kept with its id.
        backup: Option<String>,
        /// Whether what came since may be lost.
        discard_newer: bool,
    },
}

/// What the daemon answers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "snake_case")]
pub enum Reply {
    /// Who is there.
    Hello {
        /// [`CONTROL_PROTOCOL`].
        protocol: u32,
        /// Version of the daemon.
        version: String,
        /// Its process id.
        pid: u32,
    },
    /// How everything stands.
    Status(Box<Snapshot>),
    /// Something happened to a migration.
    Event(Box<Event>),
    /// Newest first.
    History {
        /// The events.
        events: Vec<Event>,
    },
    /// Rows that steps left out, oldest version first in each database.
    FailedItems {
        /// The first of them.
        items: Vec<FailedItemView>,
        /// How many there are.
        total: u64,
    },
    /// One per database.
    Tables {
        /// The databases.
        databases: Vec<TablesView>,
    },
    /// By database, newest first.
    Conflicts {
        /// The first of them.
        conflicts: Vec<ConflictView>,
        /// How many there are.
        total: u64,
    },
    /// By database.
    Quarantine {
        /// The first of them.
        rows: Vec<WaitingView>,
        /// How many there are.
        total: u64,
    },
    /// One per database.
    Plan {
        /// The plans.
        plans: Vec<PlanView>,
    },
    /// One per database.
    Adopt {
        /// What there is.
        databases: Vec<AdoptView>,
    },
    /// A rehearsal goes on.
    Rehearsing {
        /// The database whose copy it is.
        database: PathBuf,
        /// What is being done with the copy.
        now: Box<Picture>,
    },
    /// By database, each newest first.
    Backups {
        /// The backups.
        backups: Vec<BackupView>,
    },
    /// An order was kept and will be carried out, even after a restart.
    Accepted {
        /// For `Request::Outcome`.
        request_id: RequestId,
    },
    /// An order was carried out.
    Finished {
        /// How it went.
        summary: Summary,
    },
    /// What became of an order; none while it is open.
    Outcome {
        /// How it went.
        summary: Option<Summary>,
    },
    /// What is looked at, and how it is.
    Doctor {
        /// The checks.
        checks: Vec<Check>,
    },
    /// Done.
    Done,
    /// It cannot be done.
    Refused {
        /// Why.
        message: String,
        /// What to do.
        remedy: Remedy,
    },
}

/// Sum over databases: the seed systems' words.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    /// Databases looked at.
    pub total: u32,
    /// Databases at their planned version.
    pub completed: u32,
    /// Databases that failed.
    pub failed: u32,
    /// Databases that wait for something.
    pub skipped: u32,
    /// Migrations that were applied or reverted.
    pub migrations: u32,
    /// Why, for those that failed or wait.
    pub errors: Vec<SummaryError>,
    /// What became of rows that were to be tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<Retried>,
    /// What became of rows, where an order was about them: one per database.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rows: Vec<RowsDone>,
}

/// What an order about rows came to on one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsDone {
    /// The file.
    pub database: PathBuf,
    /// What went up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchanged: Option<RowsMoved>,
    /// How both sides compare, table by table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Vec<VerifiedTable>>,
    /// What was decided, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<String>,
    /// What was left when the file was detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detached: Option<Detached>,
}

/// Rows that moved in one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsMoved {
    /// Rows sent.
    pub pushed: u64,
    /// Of these, accepted as they were.
    pub accepted: u64,
    /// Of these, with something of another that stands.
    pub merged: u64,
    /// Of these, waiting for a decision.
    pub open: u64,
    /// Rows that landed.
    pub landed: u64,
    /// Whether the server told everything anew.
    pub anew: bool,
}

impl From<&Replicated> for RowsMoved {
    fn from(did: &Replicated) -> Self {
        let Replicated { pushed, accepted, merged, open, landed, anew, .. } = *did;
        Self { pushed, accepted, merged, open, landed, anew }
    }
}

/// A file that was detached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// What was not exchanged.
    #[serde(flatten)]
    pub left: Left,
    /// The file that has it; none where there was nothing.
    pub file: Option<PathBuf>,
    /// Objects that were removed from the database.
    pub objects: usize,
}

/// One database that failed or waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SummaryError {
    /// The file.
    pub database: PathBuf,
    /// The migration, where it is one's fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub migration: Option<MigrationName>,
    /// A short stable code.
    pub code: String,
    /// What.
    pub message: String,
    /// What to do.
    pub remedy: Remedy,
    /// Whether it only waits.
    pub waiting: bool,
}

/// How everything stands. `whimbrel status --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// `whimbrel.status/1`.
    pub schema: String,
    /// The daemon.
    pub daemon: DaemonView,
    /// The server.
    pub server: ServerView,
    /// The databases, by path.
    pub databases: Vec<DatabaseView>,
    /// What concerns the whole device.
    pub health: Vec<HealthItem>,
}

/// The `schema` of a [`Snapshot`].
pub const STATUS_SCHEMA: &str = "whimbrel.status/1";

/// The daemon itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Its version.
    pub version: String,
    /// Its process id.
    pub pid: u32,
    /// When it started, in milliseconds since 1970.
    pub started_at_ms: i64,
    /// What it is doing: `idle`, `polling`, `applying`, `reporting`.
    pub activity: String,
    /// Cycles so far.
    pub cycles: u64,
    /// Whether it ends with its first cycle (`run --once`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub once: bool,
}

/// The server as the daemon sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerView {
    /// Its address.
    pub url: Option<String>,
    /// Who we are to it.
    pub device_id: Option<DeviceId>,
    /// How the last exchange went: `online`, `offline`, `not_enrolled`, `refused`, `unknown`.
    pub state: String,
    /// `none`.
    pub trust: String,
    /// When something was last exchanged.
    pub last_exchange_ms: Option<i64>,
    /// Failed tries in a row.
    pub failures: u32,
    /// When it is tried again at the latest.
    pub next_poll_ms: Option<i64>,
    /// Reports that the server does not have yet.
    pub reports_unsent: u64,
    /// Why the last exchange failed.
    pub error: Option<String>,
    /// What to do about it.
    pub remedy: Option<Remedy>,
}

/// One database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseView {
    /// The file.
    pub path: PathBuf,
    /// Its app.
    pub app: AppName,
    /// Who it is; none before it was first opened.
    pub client_id: Option<ClientId>,
    /// How often the file went back, from 1.
    pub epoch: u32,
    /// Highest version in place.
    pub version: u32,
    /// Newest version that was accepted.
    pub latest: u32,
    /// What the plan allows.
    pub order: Option<Order>,
    /// Versions that the plan allows and that are not in place.
    pub pending: u32,
    /// The worst of its migrations' statuses.
    pub status: Status,
    /// What is being done now.
    pub now: Picture,
    /// How long it has been waiting for the application, in milliseconds, if it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting_ms: Option<u64>,
    /// The online migration that was begun and is not done, and where it stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub half_done: Option<HalfDone>,
    /// The migration that stopped the chain, and why.
    pub failure: Option<MigrationFailure>,
    /// When a transient failure is tried again.
    pub next_try_ms: Option<i64>,
    /// The application's build, where it is known.
    pub app_version: Option<String>,
    /// Why its rows cannot be exchanged at all, where that is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_rows: Option<String>,
    /// How its rows stand, where it exchanges any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<RowsView>,
    /// What is wrong or waited for.
    pub health: Vec<HealthItem>,
    /// Every migration of the chain.
    pub migrations: Vec<MigrationView>,
}

/// How the rows of a database stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsView {
    /// In numbers.
    #[serde(flatten)]
    pub standing: Standing,
    /// When both sides last had nothing more to say, in milliseconds since 1970, as far as this daemon knows.
    pub checked_ms: Option<i64>,
    /// Rows that the last exchange moved.
    pub moved: RowsMoved,
    /// Why the last exchange ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// The migration that stopped a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationFailure {
    /// Its name.
    pub migration: Option<MigrationName>,
    /// Its version.
    pub version: u32,
    /// Why.
    pub failure: Failure,
}

/// One migration of a database's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationView {
    /// Its place.
    pub version: u32,
    /// Its name.
    pub name: MigrationName,
    /// Where it stands.
    pub status: Status,
    /// How often it was begun.
    pub attempts: u32,
    /// When it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at_ms: Option<i64>,
}

/// A row that a step left out. `whimbrel history --failed-items --json` prints a list of these as `items`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedItemView {
    /// The file.
    pub database: PathBuf,
    /// The migration's version.
    pub version: u32,
    /// Its name, where it is known.
    pub migration: Option<MigrationName>,
    /// Number of the step, from 1.
    pub step: u32,
    /// The row's key as a JSON array, or the line of a shipped file.
    pub key: String,
    /// SQLite's extended result code.
    pub code: i32,
    /// What SQLite said.
    pub message: String,
    /// The row as JSON; cut where it is long.
    pub row: Option<String>,
    /// When it was last tried, in milliseconds since 1970.
    pub at_ms: i64,
}

/// A conflict. `whimbrel conflicts list --json` prints a list of these as `conflicts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// The file.
    pub database: PathBuf,
    /// Its number in that file.
    pub id: i64,
    /// The table's name; its id where it has none at this version.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// What met what.
    pub kind: String,
    /// Whether the row's edits wait for a decision.
    pub open: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Both sides, column by column.
    pub columns: Vec<ConflictColumn>,
    /// The key of the row that has the unique values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_key: Option<Vec<Value>>,
    /// Why, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The oldest version of the schema that the server takes it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_schema: Option<u32>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<String>,
    /// What decides it.
    pub choices: Vec<Choice>,
}

/// One column of a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictColumn {
    /// Its name; its id where it has none at this version.
    pub column: String,
    /// What was written here; none where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "held")]
    pub mine: Option<Value>,
    /// What the server has; none where it has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "held")]
    pub theirs: Option<Value>,
}

/// A NULL that is there is not a value that is not.
fn held<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

/// A row of the server that cannot land yet. `whimbrel quarantine list --json` prints a list of these as `rows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingView {
    /// The file.
    pub database: PathBuf,
    /// The table's name; its id where it has none at this version.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// Its version at the server.
    pub version: u64,
    /// Its values by column, in the order of the table; none where it was deleted.
    pub values: Option<Vec<WaitingColumn>>,
    /// Why it cannot land, as a word.
    pub code: String,
    /// Why, for a person.
    pub why: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: i64,
    /// How often it was tried.
    pub tries: u32,
}

/// One column of a row that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingColumn {
    /// Its name; its id where it has none at this version.
    pub column: String,
    /// Its value.
    pub value: Value,
}

/// The tables of one database. `whimbrel status --tables --json` prints a list of these as `databases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TablesView {
    /// The file.
    pub database: PathBuf,
    /// Its size in bytes.
    pub file_bytes: u64,
    /// Its tables, the largest first.
    pub tables: Vec<TableSize>,
    /// Why they cannot be told, if so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<HealthItem>,
}

/// What would happen to one database. `whimbrel plan --json` prints a list of these as `plans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanView {
    /// The file.
    pub path: PathBuf,
    /// Its app.
    pub app: AppName,
    /// Version in place.
    pub version: u32,
    /// Why nothing would happen now, if so.
    pub waits_for: Vec<HealthItem>,
    /// What would run, in order.
    pub steps: Vec<PlannedMigration>,
    /// Free bytes on the file's disk.
    pub free_bytes: Option<u64>,
    /// What became of it on a private copy, where that was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rehearsal: Option<Rehearsal>,
}

/// One backup of a database. `whimbrel backup list --json` prints a list of these as `backups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackupView {
    /// The file that it is of.
    pub database: PathBuf,
    /// The backup.
    #[serde(flatten)]
    pub backup: Backup,
}

/// One migration that would run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedMigration {
    /// Its place.
    pub version: u32,
    /// Its name.
    pub name: MigrationName,
    /// `apply` or `revert`.
    pub operation: whimbrel_shared::status::Operation,
    /// Its files with their statements.
    pub files: BTreeMap<String, String>,
    /// Rows it would touch, about.
    pub rows: u64,
    /// How long it would hold the write lock, about.
    pub lock_ms: u64,
    /// How long it would take in all, about.
    #[serde(default)]
    pub took_ms: u64,
    /// Bytes it would write, about.
    pub write_bytes: u64,
    /// Whether it asks for a backup before the run.
    #[serde(default)]
    pub backup: bool,
}

/// What there is to take over on one database. `whimbrel adopt status --json` prints a list of these as `databases`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptView {
    /// The file.
    pub path: PathBuf,
    /// Its app.
    pub app: AppName,
    /// Version in place.
    pub version: u32,
    /// Newest version that was accepted.
    pub latest: u32,
    /// The trackers of other tools that it has.
    pub trackers: Vec<TrackerView>,
    /// What it was adopted as, if it was.
    pub adopted: Option<AdoptedView>,
    /// At which version it would be taken over.
    pub would: Option<WouldAdopt>,
    /// Why it would not.
    pub refused: Option<HealthItem>,
}

/// One tracker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrackerView {
    /// Whose, as its users write it.
    pub tool: String,
    /// Its table, or `PRAGMA user_version`.
    pub table: String,
    /// Entries that are in place.
    pub applied: u32,
    /// The last of them, as the tool shows it.
    pub last: Option<String>,
    /// Why it cannot be believed as it is.
    pub trouble: Option<String>,
}

/// What a database was adopted as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptedView {
    /// Everything up to it was in place.
    pub version: u32,
    /// What said so: a tool, `schema` or `person`.
    pub by: String,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// What differed then, and was accepted by a person.
    pub drift: Vec<String>,
}

/// What `adopt run` would record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WouldAdopt {
    /// Everything up to it.
    pub version: u32,
    /// What says so: a tool or `schema`.
    pub by: String,
    /// What a person should know.
    pub notes: Vec<String>,
}

/// One thing that `doctor` looks at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// A short stable code.
    pub code: String,
    /// `ok`, `info`, `warning`, `error`.
    pub result: String,
    /// What was found.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub remedy: Option<Remedy>,
}
