//! What was found by looking: plans, tables, backups, what there is to take over, and the checks of `doctor`.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{AppName, MigrationName},
    protocol::state::HealthItem,
    remedy::Remedy,
};

use crate::migrate::{backup::Backup, rehearse::Rehearsal, tables::TableSize};

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
