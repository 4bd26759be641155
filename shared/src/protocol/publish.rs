//! `POST /api/migrations`: a publisher's new links. All of them, or none. `POST /api/roots`: the root that they are signed under.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppName, MigrationName},
    migration::TargetEntry,
    tuf::{Envelope, PublicKey, Time},
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
    /// The targets metadata with the links in it, signed by enough publishers ([`crate::tuf::SignedTargets`]). Needed once the
    /// app has a root, refused before. Without links it is signed anew: a later end, or another revert floor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<Envelope>,
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

/// `POST /api/roots`: the next root of an app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootRequest {
    /// Signed by enough keys of the root before it and by enough of its own.
    pub root: Envelope,
}

/// `GET /api/trust/{app}`: what a publisher needs to know of the server's side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustResponse {
    /// The server's own keys, as a root has to name them.
    pub online: OnlineKeys,
    /// The newest root; none before one was uploaded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Envelope>,
    /// What the signed targets say of it ([`crate::tuf::SignedTargets::revert_floor`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert_floor: Option<u32>,
    /// Version and end of what is signed, by role.
    #[serde(default)]
    pub expires: BTreeMap<String, Signed>,
    /// What a person has to look at, such as signatures that could not be renewed.
    #[serde(default)]
    pub alarms: Vec<String>,
}

/// The public halves of the keys that a server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OnlineKeys {
    /// For snapshots.
    pub snapshot: PublicKey,
    /// For timestamps.
    pub timestamp: PublicKey,
    /// For plans.
    pub plan: PublicKey,
}

/// A signed document, from afar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signed {
    /// Its version.
    pub version: u64,
    /// Its end.
    pub expires: Time,
}
