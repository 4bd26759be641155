//! What the deeds about rows take.

use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, Digest, SpaceName},
    protocol::push::PushRequest,
};

/// A push of a device that proved itself.
#[derive(Clone, Debug)]
pub struct Push {
    /// The device.
    pub device: DeviceId,
    /// What it sends.
    pub request: PushRequest,
    /// [`PushRequest::content`], computed where it costs nobody a turn.
    pub content: Digest,
    /// Now.
    pub now_ms: i64,
}

/// An operator's word on the space of a database.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The database.
    pub client_id: ClientId,
    /// The space; made where it is not there.
    pub space: SpaceName,
    /// Name of the key.
    pub by: String,
    /// Now.
    pub now_ms: i64,
}

/// Which conflicts to list, newest first.
#[derive(Clone, Debug)]
pub struct ConflictsPage {
    /// Of this app.
    pub app: AppName,
    /// Only those that wait for a client or a person.
    pub open: bool,
    /// Only what is older than this number.
    pub before: Option<i64>,
    /// At most so many.
    pub limit: u32,
}

/// What is forgotten: all from before these times, in milliseconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Forget {
    /// Deletions of rows.
    pub deleted_ms: i64,
    /// Answers to pushes.
    pub answers_ms: i64,
    /// Conflicts that are decided.
    pub conflicts_ms: i64,
}

impl Forget {
    /// Everything from before that time.
    pub fn before(at_ms: i64) -> Self {
        Self { deleted_ms: at_ms, answers_ms: at_ms, conflicts_ms: at_ms }
    }
}
