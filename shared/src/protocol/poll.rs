//! `GET /api/poll`: what the server allows the device's databases now. One request for all of them, one ETag.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppName, ClientId, Digest},
    tuf::Envelope,
};

/// What a poll answers. Nothing in it changes while nothing changed, so its hash is the ETag.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PollResponse {
    /// The server's [`crate::PROTOCOL`].
    pub protocol: u32,
    /// One per database that the server knows of this device.
    pub plans: Vec<Plan>,
    /// The same plans, signed ([`crate::tuf::plan`]), of the apps that are. A signature follows from its plan, so these say nothing new, and the ETag
    /// is that of the answer without them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signed_plans: Vec<Envelope>,
    /// State of the repository of each app the device is enrolled for.
    pub repository: BTreeMap<AppName, RepositoryHead>,
}

/// Which targets metadata is current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RepositoryHead {
    /// [`crate::migration::Targets::version`].
    pub version: u64,
    /// Digest of the bytes of `GET /repository/{app}/targets.json`.
    pub digest: Digest,
    /// What is signed of it; none while nobody has uploaded a root for the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signed: Option<SignedHead>,
}

/// Where the signed repository of an app stands. With it an idle device needs no request but the poll: it has the root of that
/// version, and the timestamp says that nothing is new.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedHead {
    /// Newest root: `GET /repository/{app}/{root_version}.root.json`.
    pub root_version: u64,
    /// The bytes of `GET /repository/{app}/timestamp.json`.
    pub timestamp: String,
}

/// What the server allows one database.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The database.
    pub client_id: ClientId,
    /// Its app.
    pub app: AppName,
    /// Grows with every change of this database's plan.
    pub plan_seq: u64,
    /// What it may do.
    pub order: Order,
}

/// How far a database may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "order", rename_all = "snake_case")]
pub enum Order {
    /// Apply every version up to and including this one. Nothing is reverted.
    ApplyUpTo {
        /// 0 means none.
        version: u32,
    },
    /// Revert every version above this one, newest first, and apply none.
    RevertDownTo {
        /// 0 means all.
        version: u32,
    },
}
