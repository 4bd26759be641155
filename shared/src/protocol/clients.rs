//! `GET /api/clients`, `GET /api/clients/{id}`, `GET /api/migrations`: what operators read.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppName, ClientId, DeviceId, Digest, MigrationName},
    protocol::{poll::Order, state::DatabaseState},
    status::{Event, Failure, Status},
};

/// A page of clients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientsResponse {
    /// In the order of their ids.
    pub clients: Vec<ClientSummary>,
    /// Pass as `after` for the next page; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<ClientId>,
}

/// One database as the server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientSummary {
    /// Its device.
    pub device_id: DeviceId,
    /// Name of the device.
    pub device_name: String,
    /// Milliseconds since 1970 of the device's last request.
    pub last_seen_ms: i64,
    /// What the plan allows it.
    pub order: Order,
    /// Newest published version of its app.
    pub latest: u32,
    /// Versions that the plan allows and that are not in place.
    pub pending: u32,
    /// Its last state.
    pub state: DatabaseState,
}

/// One database with each of its migrations and its history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientDetail {
    /// As in the list.
    pub client: ClientSummary,
    /// Its migrations in chain order.
    pub migrations: Vec<MigrationStatus>,
    /// Its reports, newest first.
    pub history: Vec<Event>,
}

/// Where one migration stands on one database, as its reports say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationStatus {
    /// The migration.
    pub name: MigrationName,
    /// Its place in the chain.
    pub version: u32,
    /// Where it stands.
    pub status: Status,
    /// Attempts so far.
    pub attempts: u32,
    /// When its last attempt began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at_ms: Option<i64>,
    /// When it was completed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub completed_at_ms: Option<i64>,
    /// Why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failure: Option<Failure>,
}

/// The published migrations of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrationsResponse {
    /// In chain order.
    pub migrations: Vec<PublishedMigration>,
}

/// One published link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedMigration {
    /// Its app.
    pub app: AppName,
    /// Its name.
    pub name: MigrationName,
    /// Its place in the chain.
    pub version: u32,
    /// Its revision.
    pub revision: u32,
    /// Digest of its bytes.
    pub digest: Digest,
    /// When it was published, in milliseconds since 1970.
    pub published_at_ms: i64,
    /// Name of the key it was published with.
    pub published_by: String,
    /// Databases of the app on which it is in place.
    pub completed: u32,
    /// Databases of the app on which it failed.
    pub failed: u32,
}

/// `PUT /api/plan`: how far an app's databases, or one of them, may go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlanRequest {
    /// The app.
    pub app: AppName,
    /// Only this database; else all of the app that have no plan of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
    /// None: up to the newest published version (or, for one database, what the app's plan says).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
}
