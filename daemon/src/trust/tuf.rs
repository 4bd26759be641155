//! The Update Framework (<https://theupdateframework.github.io/specification/>), as `sigstore-tuf` verifies it. The only file
//! that names that library.
//!
//! The library writes through to a store and swallows what the store says; so it gets a draft, which cannot fail, and
//! whoever refreshed commits what came of it in one transaction, or nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use sigstore_tuf::{
    Error, Metadata, MetadataStore, Repository, Role, Root, Signature, Snapshot, TargetFile, Targets, Timestamp, TrustedMetadataSet, Updater,
    UpdaterConfig, transport::FetchFuture,
};

use super::floors::{RoleKeys, Seen};
use crate::{
    store::trust::{Files, Proof},
    transport::{TransportError, repository::Mirror},
};

/// Largest root that is read.
pub const MAX_ROOT_BYTES: u64 = 512 * 1024;
/// Largest timestamp.
pub const MAX_TIMESTAMP_BYTES: u64 = 16 * 1024;
/// Largest snapshot.
pub const MAX_SNAPSHOT_BYTES: u64 = 2 * 1024 * 1024;
/// Largest targets.
pub const MAX_TARGETS_BYTES: u64 = 5 * 1024 * 1024;
/// Most roots that are caught up with in one refresh: a device sleeps for years.
const MAX_ROTATIONS: u32 = 1024;

/// Why metadata or a target is not believed.
#[derive(Debug, thiserror::Error)]
pub enum TufError {
    /// It could not be fetched.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The repository does not have it.
    #[error("the repository does not have it: {what}")]
    NotThere {
        /// What.
        what: String,
    },
    /// It is valid and old.
    #[error("{role} goes back from version {trusted} to {offered}")]
    Rollback {
        /// Whose.
        role: String,
        /// What was verified before.
        trusted: u64,
        /// What is offered.
        offered: u64,
    },
    /// It is over.
    #[error("{role} expired at {expires}")]
    Expired {
        /// Whose.
        role: String,
        /// When.
        expires: String,
    },
    /// Signatures are missing.
    #[error("{role} has {found} valid signatures, and needs {threshold}")]
    Unsigned {
        /// Whose.
        role: String,
        /// How many there are.
        found: usize,
        /// How many there have to be.
        threshold: usize,
    },
    /// One document does not say the other.
    #[error("{why}")]
    Mixed {
        /// What does not fit.
        why: String,
    },
    /// It is not TUF metadata.
    #[error("it cannot be read: {why}")]
    Unreadable {
        /// What the library says.
        why: String,
    },
}

impl From<Error> for TufError {
    fn from(error: Error) -> Self {
        match error {
            Error::Transport { message, source } => match source.map(|source| source.downcast::<TransportError>()) {
                Some(Ok(transport)) => Self::Transport(*transport),
                Some(Err(other)) => Self::NotThere { what: format!("{message}: {other}") },
                None => Self::NotThere { what: message },
            },
            Error::TargetNotFound(path) => Self::NotThere { what: path },
            Error::Rollback { role, trusted, new } => Self::Rollback { role, trusted, offered: new },
            Error::BadRootVersion { trusted, new } => Self::Rollback { role: "root".to_owned(), trusted, offered: new },
            Error::Expired { role, expires } => Self::Expired { role, expires: expires.to_string() },
            Error::ThresholdNotMet { role, found, threshold } => Self::Unsigned { role, found, threshold },
            Error::DuplicateSignature { role, key_id } => Self::Mixed { why: format!("{role} is signed twice by the key {key_id}") },
            Error::IntegrityMismatch(why) => Self::Mixed { why },
            other => Self::Unreadable { why: chain(&other) },
        }
    }
}

/// An error with its causes: the library's own text leaves them out.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// A moment of ours as the library's. One that it cannot say is the latest that it can: then everything is expired.
fn moment(ms: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX)
}

/// What the library keeps while it works. Never fails; targets are left out, which the caller keeps.
#[derive(Clone, Debug, Default)]
struct Draft(Arc<Mutex<Files>>);

impl Draft {
    fn files(&self) -> MutexGuard<'_, Files> {
        // Nothing that holds it can panic half-way.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MetadataStore for Draft {
    fn load(&self, name: &str) -> sigstore_tuf::Result<Option<Vec<u8>>> {
        Ok(self.files().get(name).cloned())
    }

    fn store(&self, name: &str, bytes: &[u8]) -> sigstore_tuf::Result<()> {
        // A snapshot comes under two names: the one with its version is never asked for again.
        let versioned = name.strip_suffix(".snapshot.json").is_some_and(|version| version.bytes().all(|b| b.is_ascii_digit()));
        if !versioned && !name.starts_with("targets/") {
            self.files().insert(name.to_owned(), bytes.to_vec());
        }
        Ok(())
    }
}

impl Repository for Mirror {
    fn fetch_metadata<'a>(&'a self, name: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move { answer(name, self.metadata(name, max_length).await) })
    }

    fn fetch_target<'a>(&'a self, path: &'a str, max_length: u64) -> FetchFuture<'a> {
        Box::pin(async move { answer(path, self.target(path, max_length).await) })
    }
}

fn answer(name: &str, fetched: Result<Option<bytes::Bytes>, TransportError>) -> sigstore_tuf::Result<Option<Vec<u8>>> {
    fetched.map(|bytes| bytes.map(|b| b.to_vec())).map_err(|e| Error::transport_with_source(name, e))
}

/// A client of one repository at one place.
#[derive(Debug)]
pub struct Client {
    updater: Updater,
    draft: Draft,
}

impl Client {
    /// A client that believes `anchor`, remembers `files`, and asks `mirror`. Nothing is fetched by this. Fails where the
    /// anchor is no root that signs itself.
    pub fn new(anchor: &[u8], files: Files, mirror: Mirror) -> Result<Self, TufError> {
        let draft = Draft(Arc::new(Mutex::new(files)));
        let mut config = UpdaterConfig::default();
        config.root_max_length = MAX_ROOT_BYTES;
        config.timestamp_max_length = MAX_TIMESTAMP_BYTES;
        config.snapshot_max_length = MAX_SNAPSHOT_BYTES;
        config.targets_max_length = MAX_TARGETS_BYTES;
        config.target_max_length = whimbrel_shared::migration::MAX_BODY_BYTES;
        config.max_root_rotations = MAX_ROTATIONS;
        let updater = Updater::new(mirror, anchor)?.with_config(config).with_store(draft.clone());
        Ok(Self { updater, draft })
    }

    /// Catches up with the repository, at `now_ms`. Whatever was verified until it failed is in [`Client::files`].
    pub async fn refresh(&mut self, now_ms: i64) -> Result<(), TufError> {
        Ok(self.updater.refresh(moment(now_ms)).await?)
    }

    /// The metadata that was verified so far.
    pub fn files(&self) -> Files {
        self.draft.files().clone()
    }

    /// What the current root says of each role.
    pub fn keys(&self) -> BTreeMap<String, RoleKeys> {
        let roles = self.updater.trusted().root().roles.iter();
        roles.map(|(name, role)| (name.clone(), RoleKeys { keyids: role.keyids.clone(), threshold: role.threshold })).collect()
    }

    /// Version and signers of each role whose metadata is signed well enough under the current root.
    pub fn seen(&self) -> BTreeMap<String, Seen> {
        let (files, root) = (self.draft.files(), self.updater.trusted().root());
        let mut seen = BTreeMap::new();
        let mut put = |role: &str, one: Option<Seen>| one.map(|one| seen.insert(role.to_owned(), one));
        put("root", signed_well::<Root>(&files, root, "root"));
        put("timestamp", signed_well::<Timestamp>(&files, root, "timestamp"));
        put("snapshot", signed_well::<Snapshot>(&files, root, "snapshot"));
        put("targets", signed_well::<Targets>(&files, root, "targets"));
        seen
    }

    /// The metadata of a target, by way of delegations where there are some; none where nobody answers for it.
    pub async fn find(&mut self, path: &str, now_ms: i64) -> Result<Option<TargetFile>, TufError> {
        Ok(self.updater.get_target_info(path, moment(now_ms)).await?)
    }

    /// The bytes of a target that [`Client::find`] or the targets of [`Client::verified`] named, verified.
    pub async fn download(&self, path: &str, target: &TargetFile) -> Result<Vec<u8>, TufError> {
        Ok(self.updater.download_target(target, path).await?)
    }

    /// Whether bytes that lie here already are those of a target, by whichever digests it has.
    pub fn is_target(&self, path: &str, target: &TargetFile, bytes: &[u8]) -> bool {
        // The library verifies what a store has; nothing else of it does so without a network.
        let name = format!("targets/{path}");
        self.draft.files().insert(name.clone(), bytes.to_vec());
        let found = self.updater.find_cached_target(target, path).is_some();
        self.draft.files().remove(&name);
        found
    }

    /// A target of the current top-level targets.
    pub fn listed(&self, path: &str) -> Option<TargetFile> {
        self.updater.trusted().targets_role("targets").and_then(|targets| targets.target(path)).cloned()
    }

    /// What was verified, after a refresh that succeeded at `now_ms`.
    pub fn verified(&self, now_ms: i64) -> Result<Verified, TufError> {
        let files = self.draft.files();
        let bytes = |name: &str| files.get(name).cloned().ok_or_else(|| TufError::NotThere { what: name.to_owned() });
        let proof = Proof {
            accepted_at_ms: now_ms,
            versions: [0; 4],
            signers: Vec::new(),
            timestamp: bytes("timestamp.json")?,
            snapshot: bytes("snapshot.json")?,
            targets: bytes("targets.json")?,
        };
        let trusted = self.updater.trusted();
        let targets = trusted.targets_role("targets").ok_or_else(|| TufError::NotThere { what: "targets.json".to_owned() })?;
        let versions =
            [trusted.root().version, trusted.timestamp().map_or(0, |t| t.version), trusted.snapshot().map_or(0, |s| s.version), targets.version];
        let signers = signed_well::<Targets>(&files, trusted.root(), "targets").map(|seen| seen.signers).unwrap_or_default();
        Ok(Verified { proof: Proof { versions, signers, ..proof }, listing: Listing::of(targets)? })
    }
}

/// A refresh that succeeded.
#[derive(Clone, Debug)]
pub struct Verified {
    /// What is verified again before anything of it runs.
    pub proof: Proof,
    /// What the publisher lists.
    pub listing: Listing,
}

/// What the publisher signed, as JSON values: what they mean is read elsewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Listing {
    /// Version of the targets.
    pub version: u64,
    /// Members that TUF does not know, such as `app`.
    pub extra: BTreeMap<String, serde_json::Value>,
    /// Every target by its path: `length`, `hashes`, `custom`.
    pub targets: BTreeMap<String, serde_json::Value>,
}

impl Listing {
    fn of(targets: &Targets) -> Result<Self, TufError> {
        let entry = |(path, target): (&String, &TargetFile)| {
            let value = serde_json::to_value(target).map_err(|e| TufError::Unreadable { why: e.to_string() })?;
            Ok((path.clone(), value))
        };
        Ok(Self {
            version: targets.version,
            extra: targets.extra.clone(),
            targets: targets.targets.iter().map(entry).collect::<Result<_, TufError>>()?,
        })
    }
}

/// Verifies a proof again: roots from `anchor` on (in `files`), then timestamp, snapshot and targets, all at the moment they were
/// accepted. No network, and no expiry later than that.
pub fn verify_again(anchor: &[u8], files: &Files, proof: &Proof) -> Result<Listing, TufError> {
    let now = moment(proof.accepted_at_ms);
    let mut trusted = TrustedMetadataSet::from_root(anchor)?;
    while trusted.root().version < proof.versions[0] {
        let name = format!("root_history/{}.root.json", trusted.root().version + 1);
        let bytes = files.get(&name).ok_or_else(|| TufError::NotThere { what: name.clone() })?;
        trusted.update_root(bytes)?;
    }
    trusted.check_root_expired(now)?;
    trusted.update_timestamp(&proof.timestamp, now)?;
    trusted.update_snapshot(&proof.snapshot, now)?;
    Listing::of(trusted.update_targets(&proof.targets, now)?)
}

/// Version and signers of each role that has a floor, as the files say it, verified or not; a file that cannot be read is
/// left out.
pub fn said(files: &Files) -> BTreeMap<String, Seen> {
    fn read<T: Role>(bytes: &[u8]) -> Option<Seen> {
        let metadata = Metadata::<T>::from_slice(bytes).ok()?;
        Some(Seen { version: metadata.signed().version(), signers: unique(metadata.signatures()) })
    }
    let role = |name: &str, read: fn(&[u8]) -> Option<Seen>| Some((name.to_owned(), read(files.get(&format!("{name}.json"))?)?));
    [role("root", read::<Root>), role("timestamp", read::<Timestamp>), role("snapshot", read::<Snapshot>), role("targets", read::<Targets>)]
        .into_iter()
        .flatten()
        .collect()
}

/// The app that each document names, by role; none where a document names none.
pub fn apps(files: &Files) -> BTreeMap<&'static str, Option<String>> {
    let said = |bytes: &Vec<u8>| {
        let value: serde_json::Value = serde_json::from_slice(bytes).ok()?;
        value.get("signed")?.get("app")?.as_str().map(str::to_owned)
    };
    super::floors::ROLES.iter().filter_map(|role| files.get(&format!("{role}.json")).map(|bytes| (*role, said(bytes)))).collect()
}

/// When the kept timestamp expires, in milliseconds since 1970.
pub fn fresh_until_ms(files: &Files) -> Option<i64> {
    Some(Metadata::<Timestamp>::from_slice(files.get("timestamp.json")?).ok()?.signed().expires.as_millisecond())
}

/// The version of a root that signs itself, and the app that it names.
pub fn root_version(bytes: &[u8]) -> Result<(u64, Option<String>), TufError> {
    let trusted = TrustedMetadataSet::from_root(bytes)?;
    let app = trusted.root().extra.get("app").and_then(|app| app.as_str()).map(str::to_owned);
    Ok((trusted.root().version, app))
}

fn unique(signatures: &[Signature]) -> Vec<String> {
    signatures.iter().filter(|s| !s.sig.is_empty()).map(|s| s.keyid.clone()).collect::<BTreeSet<_>>().into_iter().collect()
}

/// Version and valid signers of a role's file, where they are as many as `root` asks for.
fn signed_well<T: Role>(files: &Files, root: &Root, role: &str) -> Option<Seen> {
    let metadata = Metadata::<T>::from_slice(files.get(&format!("{role}.json"))?).ok()?;
    let keys = root.role(role)?;
    let valid = |id: &String| {
        let mut alone = keys.clone();
        (alone.keyids, alone.threshold) = (vec![id.clone()], 1);
        metadata.verify_threshold(&root.keys, &alone, role).is_ok()
    };
    let signers: Vec<String> = unique(metadata.signatures()).into_iter().filter(|id| keys.keyids.contains(id)).filter(valid).collect();
    (keys.threshold > 0 && signers.len() >= keys.threshold).then(|| Seen { version: metadata.signed().version(), signers })
}
