//! Errors on the wire: RFC 9457 problem documents with a remedy.

use serde::{Deserialize, Serialize};

use crate::ids::ClientId;

/// The media type.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// The `type` that says: this client id belongs to another database. A device may act on it, so it is a promise.
pub const CLIENT_TAKEN: &str = "/problems/client-taken";
/// The `type` that says: what this file has seen does not lead to what there is now (its deletions are forgotten, the store
/// was restored, the database was bound to another space). Take a snapshot, and push what was not sent yet on top of it.
pub const SNAPSHOT_NEEDED: &str = "/problems/snapshot-needed";
/// The `type` that says: this file is older than what it sent before. It gets a new epoch, and takes a snapshot.
pub const FILE_WENT_BACK: &str = "/problems/file-went-back";
/// The `type` that says: no device has told of this database; the store may have been restored. It is told of, then asked again.
pub const NOT_REPORTED: &str = "/problems/not-reported";
/// The `type` that says: a push with this id had another content. What waits goes in another push.
pub const PUSH_DIFFERS: &str = "/problems/push-differs";

/// The `type` that says: an operator ended this device's token. Nothing is exchanged until the device is enrolled again.
pub const DEVICE_REVOKED: &str = "/problems/device-revoked";
/// The `type` that says: another token took the place of the one that was sent, and not the one that this device asks for.
pub const TOKEN_REPLACED: &str = "/problems/token-replaced";

/// A problem document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A stable name, as a relative reference: `/problems/unknown-token`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What happened here, with its numbers.
    pub detail: String,
    /// What to do now.
    pub remedy: String,
    /// The database that a [`CLIENT_TAKEN`] is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_id: Option<ClientId>,
}
