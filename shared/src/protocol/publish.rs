//! `POST /api/migrations`: a publisher's new links. All of them, or none.

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppName, MigrationName},
    migration::TargetEntry,
};

/// Largest publish request, in bytes.
pub const MAX_PUBLISH_BYTES: usize = 64 * 1024 * 1024;

/// The links to add at the end of an app's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishRequest {
    /// The app; made when it is not there yet.
    pub app: AppName,
    /// In chain order.
    pub links: Vec<PublishLink>,
}

/// One link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishLink {
    /// Its targets entry.
    pub target: TargetEntry,
    /// The target file, exactly the bytes that `target` hashes.
    pub body: String,
    /// The same statements for clients of the seed form, split by SQLite at the publisher.
    pub seed: SeedQueries,
}

/// Statements, one each.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeedQueries {
    /// Milliseconds since 1970 that the name carries, else the version.
    pub timestamp: i64,
    /// Statements up.
    pub up_queries: Vec<String>,
    /// Statements down.
    pub down_queries: Vec<String>,
}

/// What became of each.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishResponse {
    /// New now.
    pub published: Vec<MigrationName>,
    /// There already, with the same digest.
    pub unchanged: Vec<MigrationName>,
    /// Version of the targets metadata after it.
    pub targets_version: u64,
}
