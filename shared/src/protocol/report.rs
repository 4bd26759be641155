//! `POST /api/migrations/status`: what happened, in our form (a batch) or the seed's (one flag).

use serde::{Deserialize, Serialize};

use crate::{
    ids::{EventId, MigrationName},
    status::Event,
};

/// Most reports in one batch.
pub const MAX_REPORTS: usize = 500;

/// Either form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum StatusRequest {
    /// Ours. Each report has an id; the same id with other content is refused with 409.
    Batch {
        /// In the order in which they happened, per database.
        reports: Vec<Event>,
    },
    /// The seed's.
    Seed(SeedStatus),
}

/// The seed's body (`seeds/003`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedStatus {
    /// The migration.
    pub migration_name: MigrationName,
    /// Whether it is in place now.
    pub applied: bool,
    /// Why it is not.
    #[serde(default)]
    pub error: Option<String>,
}

/// What the server answers: exactly what it has stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusResponse {
    /// The seed's word.
    pub success: bool,
    /// Ids that are stored now, whether for the first time or again.
    #[serde(default)]
    pub acknowledged: Vec<EventId>,
}
