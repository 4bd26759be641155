//! `POST /api/state`: what a device's databases are. Sent when it changed, and once a day.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppName, ClientId, Digest, MigrationName},
    remedy::Remedy,
    status::Status,
};

/// Most databases of one device.
pub const MAX_DATABASES: usize = 10_000;

/// All databases of the asking device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateRequest {
    /// Version of the daemon.
    pub daemon_version: String,
    /// Labels of the device, from its configuration.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// One per database.
    pub databases: Vec<DatabaseState>,
}

/// One database as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DatabaseState {
    /// The database.
    pub client_id: ClientId,
    /// Its app.
    pub app: AppName,
    /// File name without its directory: enough for a person, and nothing about the user.
    pub file_name: String,
    /// How often this file went back to an older state (a restored backup), from 1.
    pub epoch: u32,
    /// Highest version whose schema is in place.
    pub version: u32,
    /// Digest of that version's bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Digest>,
    /// Fingerprint of the chain's objects as found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Digest>,
    /// Accepted and not in place.
    pub pending: u32,
    /// The worst of: running, failed, pending, completed.
    pub status: Status,
    /// The application's build, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_version: Option<String>,
    /// The application's SQLite library, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app_sqlite: Option<String>,
    /// What is wrong or waited for.
    #[serde(default)]
    pub health: Vec<HealthItem>,
    /// How far a migration that takes its time has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub progress: Option<Progress>,
}

/// How far a row step of a migration has come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The migration.
    pub migration: MigrationName,
    /// Number of the step, from 1.
    pub step: u32,
    /// How many there are.
    pub steps: u32,
    /// Rows looked at.
    pub done: u64,
    /// Rows there were when it began, about.
    pub total: u64,
    /// Rows that failed and were left.
    pub failed: u64,
    /// Rows a second, lately.
    pub rate: u64,
    /// Milliseconds that are left at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
}

/// One thing that is wrong or waited for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthItem {
    /// A short stable code, such as `held` or `disk_full`.
    pub code: String,
    /// How bad.
    pub severity: Severity,
    /// One sentence.
    pub message: String,
    /// What can be done.
    pub remedy: Remedy,
}

/// How bad a health item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Worth knowing.
    Info,
    /// It copes.
    Warning,
    /// A person should look.
    Error,
}
