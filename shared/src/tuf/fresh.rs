//! Snapshot and timestamp: what the server signs, so that old metadata cannot be passed off as new. Pure.

use serde::{Deserialize, Serialize};

use super::{envelope::Document, role::Role, time::Time};
use crate::{
    ids::{AppName, Digest},
    migration::Hashes,
};

/// Which bytes are current.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// Version of the document.
    pub version: u64,
    /// Length of its bytes.
    pub length: u64,
    /// Their digest.
    pub hashes: Hashes,
}

impl Pin {
    /// Of a document's bytes.
    pub fn of(version: u64, bytes: &[u8]) -> Self {
        Self { version, length: bytes.len() as u64, hashes: Hashes { sha256: Digest::of(bytes) } }
    }
}

/// What snapshot says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// Whose repository.
    pub app: AppName,
    /// Grows.
    pub version: u64,
    /// When devices refuse it.
    pub expires: Time,
    /// The current targets.
    pub meta: SnapshotMeta,
}

/// The one document that a snapshot of ours pins: there are no delegations.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SnapshotMeta {
    /// The targets metadata.
    #[serde(rename = "targets.json")]
    pub targets: Pin,
}

/// What timestamp says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timestamp {
    /// Whose repository.
    pub app: AppName,
    /// Grows.
    pub version: u64,
    /// When devices refuse it.
    pub expires: Time,
    /// The current snapshot.
    pub meta: TimestampMeta,
}

/// What a timestamp pins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TimestampMeta {
    /// The snapshot.
    #[serde(rename = "snapshot.json")]
    pub snapshot: Pin,
}

impl Document for Snapshot {
    const ROLE: Role = Role::Snapshot;
    fn version(&self) -> u64 {
        self.version
    }
    fn expires(&self) -> Time {
        self.expires
    }
    fn app(&self) -> &AppName {
        &self.app
    }
}

impl Document for Timestamp {
    const ROLE: Role = Role::Timestamp;
    fn version(&self) -> u64 {
        self.version
    }
    fn expires(&self) -> Time {
        self.expires
    }
    fn app(&self) -> &AppName {
        &self.app
    }
}

/// The version that a server gives its next snapshot or timestamp: the time in seconds, or one more than the last. A store
/// that was restored from a backup has forgotten the last one, and devices have not: counting on from the backup would be a
/// rollback to them.
pub fn next_version(last: u64, now_ms: i64) -> u64 {
    u64::try_from(now_ms / 1000).unwrap_or(0).max(last.saturating_add(1))
}

/// Whether it is time to sign again: half of its life is over, and the other half is for a person to mend what hinders it. Also when it was
/// signed by a clock that was ahead: what is good for years lets old metadata pass for new as long.
pub fn due(expires: Time, role: Role, now_ms: i64) -> bool {
    const DAY_MS: i64 = 86_400_000;
    let left_ms = expires.as_ms().saturating_sub(now_ms);
    left_ms <= role.lasts_ms() / 2 || left_ms > role.lasts_ms().saturating_add(DAY_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_restored_store_does_not_rewind_and_a_clock_that_went_back_neither() {
        assert_eq!(next_version(0, 1_700_000_000_000), 1_700_000_000);
        assert_eq!(next_version(1_700_000_000, 1_700_000_000_999), 1_700_000_001);
        assert_eq!(next_version(1_700_000_000, 1_000), 1_700_000_001);
    }

    #[test]
    fn signing_again_is_due_at_half_of_the_life() {
        let signed = 1_700_000_000_000;
        let expires = Time::from_ms(signed + Role::Timestamp.lasts_ms());
        let day = 86_400_000;
        assert!(!due(expires, Role::Timestamp, signed + 7 * day - 1));
        assert!(due(expires, Role::Timestamp, signed + 7 * day));
        assert!(!due(expires, Role::Timestamp, signed - day), "clocks differ a little");
        assert!(due(expires, Role::Timestamp, signed - day - 1));
    }
}
