//! What the store keeps of signed repositories.

use whimbrel_shared::{
    ids::AppName,
    tuf::{Document, Role},
};

/// A signed document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Whose word it is.
    pub role: Role,
    /// Its version.
    pub version: u64,
    /// Its end, in milliseconds since 1970.
    pub expires_at_ms: i64,
    /// The bytes that are served.
    pub bytes: Vec<u8>,
}

impl Kept {
    /// Of a document and its signed bytes.
    pub fn new<D: Document>(document: &D, bytes: Vec<u8>) -> Self {
        Self { role: D::ROLE, version: document.version(), expires_at_ms: document.expires().as_ms(), bytes }
    }
}

/// The newest documents of an app that has a root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    /// Which keys count.
    pub root: Kept,
    /// The chain; none before the first signed publish, and then there are no others either.
    pub targets: Option<Kept>,
    /// Version and end of the others.
    pub snapshot: Option<Kept>,
    /// Version and end of the others.
    pub timestamp: Option<Kept>,
}

impl Repository {
    /// What a change is decided on: the versions of root and timestamp.
    pub fn mark(&self) -> Mark {
        Mark { root: self.root.version, timestamp: self.timestamp.as_ref().map_or(0, |t| t.version) }
    }
}

/// A state of an app's repository: each change of it makes a new root or a new timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Mark {
    /// Version of the newest root; 0 for none.
    pub root: u64,
    /// Version of the newest timestamp; 0 for none.
    pub timestamp: u64,
}

/// New documents of an app, written all or none.
#[derive(Clone, Debug)]
pub struct Signing {
    /// The app; made when it is not there yet.
    pub app: AppName,
    /// What they were decided on: if the repository has moved, nothing is written.
    pub decided_on: Mark,
    /// The documents.
    pub files: Vec<Kept>,
    /// For the audit: name of the key and what was done. The server's own renewals are no operator's deeds.
    pub by: Option<(String, String)>,
    /// Now.
    pub now_ms: i64,
}
