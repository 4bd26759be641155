//! The root: which keys each role has, how many of them have to sign, and how one root follows another. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    envelope::{Document, Envelope, NotADocument},
    key::{KeyId, PublicKey, Verify},
    role::Role,
    time::Time,
};
use crate::{
    ids::AppName,
    remedy::{Remedy, here},
};

/// Most keys of one role.
pub const MAX_KEYS: usize = 32;

/// Which keys a role has, and how many of them have to sign.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleKeys {
    /// The keys.
    pub keyids: BTreeSet<KeyId>,
    /// How many.
    pub threshold: u32,
}

impl RoleKeys {
    /// Whether so many of them are enough.
    pub fn met_by(&self, signed: &BTreeSet<KeyId>) -> bool {
        self.threshold > 0 && u32::try_from(signed.len()).unwrap_or(u32::MAX) >= self.threshold
    }

    /// How many are missing still.
    pub fn missing(&self, signed: &BTreeSet<KeyId>) -> u32 {
        self.threshold.saturating_sub(u32::try_from(signed.len()).unwrap_or(u32::MAX))
    }
}

/// The keys of the four roles. TUF wants exactly these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles {
    /// Who signs roots.
    pub root: RoleKeys,
    /// Who signs migrations.
    pub targets: RoleKeys,
    /// The server's key for snapshots.
    pub snapshot: RoleKeys,
    /// The server's key for timestamps.
    pub timestamp: RoleKeys,
}

impl Roles {
    /// The keys of one.
    pub fn of(&self, role: Role) -> &RoleKeys {
        match role {
            Role::Root => &self.root,
            Role::Targets => &self.targets,
            Role::Snapshot => &self.snapshot,
            Role::Timestamp => &self.timestamp,
        }
    }

    /// The keys of one, to change.
    pub fn of_mut(&mut self, role: Role) -> &mut RoleKeys {
        match role {
            Role::Root => &mut self.root,
            Role::Targets => &mut self.targets,
            Role::Snapshot => &mut self.snapshot,
            Role::Timestamp => &mut self.timestamp,
        }
    }
}

/// What root says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Root {
    /// Whose repository.
    pub app: AppName,
    /// 1, 2, 3 …
    pub version: u64,
    /// When devices refuse it.
    pub expires: Time,
    /// Always true: file names carry versions and digests.
    pub consistent_snapshot: bool,
    /// Every key that a role names.
    pub keys: BTreeMap<KeyId, PublicKey>,
    /// Which key is whose.
    pub roles: Roles,
    /// The server's keys for plans. Beside `roles` and not in it: TUF fixes what is in there, and clients of other makers
    /// refuse a root with a fifth role. None where plans are not signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<RoleKeys>,
}

impl Document for Root {
    const ROLE: Role = Role::Root;
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

/// Why a root, or what it should authorise, is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RootError {
    /// Not such a document.
    #[error(transparent)]
    NotADocument(#[from] NotADocument),
    /// It could never authorise anything, or authorise too much.
    #[error("root version {version} is unusable: {why}")]
    Unusable {
        /// Which.
        version: u64,
        /// What is wrong.
        why: String,
    },
    /// Not enough of the keys that have to.
    #[error("{role}.json version {version} has {} of the {threshold} signatures that root version {by} asks for (signed by {})", signed.len(), list(signed))]
    TooFewSignatures {
        /// Whose word it is.
        role: Role,
        /// Its version.
        version: u64,
        /// How many are needed.
        threshold: u32,
        /// Whose were valid.
        signed: BTreeSet<KeyId>,
        /// The root that asks for them.
        by: u64,
    },
    /// Another app's.
    #[error("{role}.json is for the app {found}, and this is {expected}")]
    OtherApp {
        /// Whose word it is.
        role: Role,
        /// What it says.
        found: AppName,
        /// What was expected.
        expected: AppName,
    },
    /// Roots follow one another without a gap.
    #[error("root version {found} does not follow root version {known}")]
    OtherVersion {
        /// The trusted one.
        known: u64,
        /// The offered one.
        found: u64,
    },
    /// Past its end.
    #[error("{role}.json version {version} expired at {at}")]
    Expired {
        /// Whose word it is.
        role: Role,
        /// Its version.
        version: u64,
        /// When.
        at: Time,
    },
}

impl RootError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NotADocument(_) => here("make the file again with `whimbrel keys root` or `whimbrel publish`"),
            Self::Unusable { .. } => here("make the root again with `whimbrel keys root`: each role needs as many keys as its threshold"),
            Self::TooFewSignatures { .. } => here("pass the file round until enough have signed: `whimbrel keys sign FILE --key KEY`"),
            Self::OtherApp { .. } => here("name the app that the document was made for"),
            Self::OtherVersion { known, .. } => {
                here(format!("make root version {} from version {known}: `whimbrel keys root --from`", known.saturating_add(1)))
            }
            Self::Expired { .. } => here("make it again with a later end, and sign it again"),
        }
    }
}

impl Root {
    /// Refuses a root that names keys it does not have, or asks for more signatures than there are keys, or for none.
    pub fn check(&self) -> Result<(), RootError> {
        let unusable = |why: String| Err(RootError::Unusable { version: self.version, why });
        if self.version == 0 {
            return unusable("versions begin at 1".to_owned());
        }
        if !self.consistent_snapshot {
            return unusable("consistent_snapshot is false".to_owned());
        }
        if let Some((id, _)) = self.keys.iter().find(|(id, key)| key.id() != **id) {
            return unusable(format!("{id} is not the id of its key"));
        }
        let roles = Role::ALL.iter().map(|role| (role.word(), self.roles.of(*role))).chain(self.plan.iter().map(|plan| ("plan", plan)));
        for (role, RoleKeys { keyids, threshold }) in roles {
            let count = u32::try_from(keyids.len()).unwrap_or(u32::MAX);
            if keyids.len() > MAX_KEYS {
                return unusable(format!("{role} has {count} keys; at most {MAX_KEYS} are taken"));
            }
            if *threshold == 0 || *threshold > count {
                return unusable(format!("{role} asks for {threshold} signatures of {count} keys"));
            }
            if let Some(id) = keyids.iter().find(|id| !self.keys.contains_key(id)) {
                return unusable(format!("{role} names the key {id}, which is not in it"));
            }
        }
        Ok(())
    }

    /// Which of a role's keys have signed `envelope`.
    pub fn signed_by(&self, role: Role, envelope: &Envelope, verify: Verify) -> BTreeSet<KeyId> {
        envelope.signed_by(&self.keys, self.roles.of(role), verify)
    }

    /// Refuses a document that is not signed by enough keys of its role, or is another app's.
    pub fn authorises<D: Document>(&self, envelope: &Envelope, document: &D, verify: Verify) -> Result<(), RootError> {
        if *document.app() != self.app {
            return Err(RootError::OtherApp { role: D::ROLE, found: document.app().clone(), expected: self.app.clone() });
        }
        let role = self.roles.of(D::ROLE);
        let signed = self.signed_by(D::ROLE, envelope, verify);
        match role.met_by(&signed) {
            true => Ok(()),
            false => {
                Err(RootError::TooFewSignatures { role: D::ROLE, version: document.version(), threshold: role.threshold, signed, by: self.version })
            }
        }
    }
}

/// Reads a root and checks that it may follow `trusted`: signed by enough of the old keys and by enough of its own (5.3 of the
/// specification). Without a trusted one it has to be version 1, signed by its own.
pub fn accept(bytes: &[u8], trusted: Option<&Root>, verify: Verify) -> Result<(Envelope, Root), RootError> {
    let (envelope, root) = Envelope::read::<Root>(bytes)?;
    root.check()?;
    let known = trusted.map_or(0, |t| t.version);
    if known.checked_add(1) != Some(root.version) {
        return Err(RootError::OtherVersion { known, found: root.version });
    }
    if let Some(trusted) = trusted {
        trusted.authorises(&envelope, &root, verify)?;
    }
    root.authorises(&envelope, &root, verify)?;
    Ok((envelope, root))
}

/// Refuses what has expired.
pub fn check_unexpired<D: Document>(document: &D, now_ms: i64) -> Result<(), RootError> {
    match document.expires().as_ms() > now_ms {
        true => Ok(()),
        false => Err(RootError::Expired { role: D::ROLE, version: document.version(), at: document.expires() }),
    }
}

fn list(ids: &BTreeSet<KeyId>) -> String {
    if ids.is_empty() { "nobody".to_owned() } else { ids.iter().map(KeyId::short).collect::<Vec<_>>().join(", ") }
}
