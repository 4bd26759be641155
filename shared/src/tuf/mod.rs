//! The documents of The Update Framework as Whimbrel writes them: root, targets, snapshot, timestamp, and how they are signed
//! (<https://theupdateframework.github.io/specification/>, 1.0.31). Pure: who has keys passes in what signs and what verifies.
//!
//! The device does not verify with this: it uses a library of its own, so that a mistake here is found there.

pub mod canonical;
pub mod envelope;
pub mod fresh;
pub mod key;
pub mod plan;
pub mod role;
pub mod root;
pub mod targets;
pub mod time;

pub use envelope::{Document, Envelope, NotADocument, Signature};
pub use fresh::{Pin, Snapshot, Timestamp};
pub use key::{KeyId, PublicKey, Verify};
pub use role::Role;
pub use root::{RoleKeys, Root, RootError};
pub use targets::SignedTargets;
pub use time::Time;

/// The `spec_version` that is written. Read is every 1.x.
pub const SPEC_VERSION: &str = "1.0.31";
