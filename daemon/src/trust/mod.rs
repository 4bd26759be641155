//! What may run. The chain must be whole, bytes must be those of their entry, and what was accepted once never changes;
//! where a root is pinned, the publisher has signed all of it (`catch_up`), and that is verified again from stored bytes
//! before anything runs (`proof`). With `trust = "none"` nobody's signature is asked for.

pub mod catch_up;
pub mod clock;
pub mod floors;
mod proof;
pub mod tuf;

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
};

use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::{TargetEntry, Targets},
    remedy::{Remedy, here},
    trust::{TrustError, VerifiedMigration, check_chain, verify},
};

use self::tuf::TufError;
use crate::store::{
    StoreError,
    device::{DeviceStore, StoredTarget},
};

/// Why something was not accepted, or may not run.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// The chain or its bytes are not right.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// `device.db` failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// It was accepted and is not there any more.
    #[error("version {version} revision {revision} of {app} is not in device.db")]
    Missing {
        /// The app.
        app: AppName,
        /// Which.
        version: u32,
        /// Which.
        revision: u32,
    },
    /// It was accepted, and its signatures cannot be shown.
    #[error("version {version} revision {revision} of {app} cannot be shown to be signed: {why}")]
    Unproven {
        /// The app.
        app: AppName,
        /// Which.
        version: u32,
        /// Which.
        revision: u32,
        /// What is missing.
        why: String,
    },
}

impl AcceptError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Trust(error) => error.remedy(),
            Self::Store(error) => error.remedy(),
            Self::Missing { .. } | Self::Unproven { .. } => here("connect to the server once, so that it is fetched again"),
        }
    }
}

/// Judges an offered chain against what was accepted before: returns the entries that are new, in order. What was
/// accepted and is offered with other bytes, with other ids or settings of rows, or not at all, is an error, and the
/// accepted one stays.
pub fn judge(accepted: &[TargetEntry], offered: &Targets) -> Result<Vec<TargetEntry>, TrustError> {
    let chain = check_chain(offered)?;
    for known in accepted {
        let name = known.custom.name.to_string();
        let same_place = chain.iter().find(|e| e.custom.version == known.custom.version && e.custom.revision == known.custom.revision);
        match same_place {
            Some(entry) if entry.digest() == known.digest() => {
                let (new, old) = (&entry.custom, &known.custom);
                // Rows that wait here are known by the ids that were accepted.
                if (&new.columns, &new.sync) != (&old.columns, &old.sync) {
                    let why = "they are not those that were accepted; the accepted ones are kept".to_owned();
                    return Err(TrustError::BadIds { version: old.version, revision: old.revision, why });
                }
            }
            Some(entry) => return Err(TrustError::Changed { name, known: known.digest(), offered: entry.digest() }),
            None => {
                return Err(TrustError::BrokenChain { version: known.custom.version, why: format!("{name} was accepted and is no longer offered") });
            }
        }
    }
    Ok(chain
        .into_iter()
        .filter(|e| !accepted.iter().any(|k| k.custom.version == e.custom.version && k.custom.revision == e.custom.revision))
        .cloned()
        .collect())
}

/// Whether the proofs of what was accepted are whole, as far as their digests say; true where there is none yet.
pub fn proof_is_whole(store: &DeviceStore, app: &AppName) -> Result<bool, StoreError> {
    let Some(anchor) = store.kept(app)?.anchor else { return Ok(true) };
    for id in store.live_proofs(app)? {
        if store.proof(app, id)?.is_none_or(|proof| proof.id(&anchor) != id) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Accepts fetched targets: all in one transaction, or none.
pub fn accept(store: &mut DeviceStore, app: &AppName, fetched: &[(TargetEntry, Vec<u8>)], now_ms: i64) -> Result<(), AcceptError> {
    for (entry, body) in fetched {
        verify(entry, body)?;
    }
    store.atomically(|store| {
        fetched.iter().try_for_each(|(entry, body)| {
            store.accept(app, &StoredTarget { entry: entry.clone(), body: body.clone(), accepted_at_ms: now_ms }).map(|_| ())
        })
    })?;
    Ok(())
}

/// Why a root was not pinned.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// The file.
    #[error("{path}: {source}")]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no root that its own keys have signed.
    #[error("it is no root that its own keys have signed: {0}")]
    NoRoot(#[from] TufError),
    /// It is another app's.
    #[error("it is the root of {found}, and not of {app}")]
    OtherApp {
        /// The app that it names.
        found: String,
        /// The app that it was given for.
        app: AppName,
    },
    /// `device.db` failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl PinError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Unreadable { .. } => here("name a file that is there and that whimbrel may read"),
            Self::NoRoot(_) | Self::OtherApp { .. } => here("take the root.json that the publisher of this app gave"),
            Self::Store(error) => error.remedy(),
        }
    }
}

/// Reads a root from a file. Nobody knows yet whether it is the right one.
pub fn read_root(path: &Path) -> Result<Vec<u8>, PinError> {
    let unreadable = |source| PinError::Unreadable { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(tuf::MAX_ROOT_BYTES + 1).read_to_end(&mut bytes)).map_err(unreadable)?;
    tuf::root_version(&bytes)?;
    Ok(bytes)
}

/// Pins a root, unless it is pinned already. What was verified under another one is verified anew; floors stay.
pub fn pin(store: &DeviceStore, app: &AppName, root: &[u8], now_ms: i64) -> Result<(), PinError> {
    let (_, named) = tuf::root_version(root)?;
    if let Some(found) = named.filter(|named| named != app.as_str()) {
        return Err(PinError::OtherApp { found, app: app.clone() });
    }
    if store.kept(app)?.anchor.as_deref() != Some(root) {
        store.pin(app, root, now_ms)?;
    }
    Ok(())
}

/// As [`pin`], from a file.
pub fn pin_file(store: &DeviceStore, app: &AppName, path: &Path, now_ms: i64) -> Result<(), PinError> {
    pin(store, app, &read_root(path)?, now_ms)
}

/// Accepts one fetched target of a signed listing, with the proof that lists it: both, or neither.
pub fn accept_proven(
    store: &mut DeviceStore,
    app: &AppName,
    entry: &TargetEntry,
    body: &[u8],
    proof: Digest,
    now_ms: i64,
) -> Result<(), AcceptError> {
    verify(entry, body)?;
    store.atomically(|store| {
        store.accept(app, &StoredTarget { entry: entry.clone(), body: body.to_vec(), accepted_at_ms: now_ms })?;
        store.prove(app, entry, proof)
    })?;
    Ok(())
}

/// Reads an accepted migration back, and verifies its bytes again: what lies on a disk is not what was accepted until
/// it is shown to be (DESIGN 4, invariant 4).
pub fn load(store: &DeviceStore, app: &AppName, version: u32, revision: u32) -> Result<VerifiedMigration, AcceptError> {
    let stored = store.target(app, version, revision)?.ok_or_else(|| AcceptError::Missing { app: app.clone(), version, revision })?;
    if proof::is_required(store, app)? {
        return Ok(verify(&proof::entry(store, app, &stored.entry)?, &stored.body)?);
    }
    Ok(verify(&stored.entry, &stored.body)?)
}
