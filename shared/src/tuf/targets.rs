//! The targets metadata: the chain of an app as its publisher signs it. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{envelope::Document, role::Role, time::Time};
use crate::{
    ids::{AppName, Digest},
    migration::{TargetEntry, Targets},
};

/// What targets says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedTargets {
    /// Whose chain.
    pub app: AppName,
    /// Grows with every publish.
    pub version: u64,
    /// When devices refuse it.
    pub expires: Time,
    /// Lowest version that a plan may revert to; none: a plan reverts nothing, and only a person at the device does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revert_floor: Option<u32>,
    /// Every published revision, by its path.
    pub targets: BTreeMap<String, TargetEntry>,
}

impl SignedTargets {
    /// The chain alone, as devices without trust read it.
    pub fn plain(&self) -> Targets {
        Targets { app: self.app.clone(), version: self.version, targets: self.targets.clone() }
    }
}

impl Document for SignedTargets {
    const ROLE: Role = Role::Targets;
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

/// Name of a target file in the repository, where names carry digests: `HASH.NAME`.
pub fn hashed_path(digest: &Digest, path: &str) -> String {
    format!("{digest}.{path}")
}

/// Digest and path of such a name.
pub fn unhashed(name: &str) -> Option<(Digest, &str)> {
    let (digest, path) = name.split_once('.')?;
    Some((digest.parse().ok()?, path))
}
