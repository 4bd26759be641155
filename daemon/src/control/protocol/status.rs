//! How everything stands: what `status`, `history` and `watch` show.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, MigrationName},
    protocol::{poll::Order, state::HealthItem},
    remedy::Remedy,
    status::{Failure, Status},
};

use super::rows::RowsView;
use crate::migrate::{live::Picture, standing::HalfDone};

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
