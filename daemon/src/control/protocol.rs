//! What goes over the control socket, and what `--json` prints: stable, versioned, golden-tested.

mod findings;
mod rows;
mod status;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{AppName, MigrationName, RequestId},
    remedy::Remedy,
    status::Event,
};

use crate::{
    migrate::{items::Retried, live::Picture},
    sync::decide::Choice,
};

pub use findings::*;
pub use rows::*;
pub use status::*;

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
    /// This user may not.
    NotPermitted {
        /// Who may not what.
        message: String,
        /// What to do.
        remedy: Remedy,
    },
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
