//! What was accepted, verified again from stored bytes before it runs: no network, and the time is that of accepting
//! (DESIGN 6).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::TargetEntry,
};

use super::{AcceptError, tuf};
use crate::store::device::{DeviceStore, Signatures};

/// Proofs that are remembered once they were verified: one per app in use is the rule. A proof is named by the digest of
/// its content and of the pinned root, so what a name was found to prove, it proves.
const REMEMBERED: usize = 4;

type Proven = Arc<BTreeMap<String, TargetEntry>>;

static VERIFIED: Mutex<Vec<(Digest, Proven)>> = Mutex::new(Vec::new());

/// Whether what runs for `app` has to be signed.
pub(super) fn is_required(store: &DeviceStore, app: &AppName) -> Result<bool, AcceptError> {
    Ok(match store.signatures() {
        Signatures::Ignored => false,
        Signatures::Required => true,
        Signatures::AsPinned => {
            let kept = store.kept(app)?;
            kept.anchor.is_some() || !kept.damage.is_empty()
        }
    })
}

/// The entry of an accepted target as its publisher signed it.
pub(super) fn entry(store: &DeviceStore, app: &AppName, stored: &TargetEntry) -> Result<TargetEntry, AcceptError> {
    let (version, revision) = (stored.custom.version, stored.custom.revision);
    let unproven = |why: String| AcceptError::Unproven { app: app.clone(), version, revision, why };
    let proof = store.proof_of(app, version, revision)?.ok_or_else(|| unproven("no signature was ever accepted for it".to_owned()))?;
    let proven = proven(store, app, proof.proof).map_err(|error| match error {
        Unverified::Store(error) => AcceptError::Store(error),
        Unverified::Why(why) => unproven(why),
    })?;
    let entry = proven.get(&stored.path()).ok_or_else(|| unproven("the signed targets do not list it".to_owned()))?;
    if entry != stored {
        return Err(unproven("its stored entry is not the signed one".to_owned()));
    }
    Ok(entry.clone())
}

enum Unverified {
    Store(crate::store::StoreError),
    Why(String),
}

impl From<crate::store::StoreError> for Unverified {
    fn from(error: crate::store::StoreError) -> Self {
        Self::Store(error)
    }
}

fn proven(store: &DeviceStore, app: &AppName, id: Digest) -> Result<Proven, Unverified> {
    let remembered = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, proven)) = remembered().iter().find(|(known, _)| *known == id) {
        return Ok(proven.clone());
    }
    let proof = store.proof(app, id)?.ok_or_else(|| Unverified::Why("its proof is gone".to_owned()))?;
    let kept = store.kept(app)?;
    let anchor = kept.anchor.ok_or_else(|| Unverified::Why(format!("no root is pinned for {app}")))?;
    if proof.id(&anchor) != id {
        return Err(Unverified::Why("its proof is damaged, or another root was pinned since".to_owned()));
    }
    let listing = tuf::verify_again(&anchor, &kept.files, &proof).map_err(|e| Unverified::Why(e.to_string()))?;
    if listing.extra.get("app").and_then(|named| named.as_str()) != Some(app.as_str()) {
        return Err(Unverified::Why(format!("its proof is not of {app}")));
    }
    let targets = super::catch_up::chain_of(app, &listing).map_err(|e| Unverified::Why(e.to_string()))?.targets;
    let proven: Proven = Arc::new(targets);
    let mut all = remembered();
    if all.len() == REMEMBERED {
        all.remove(0);
    }
    all.push((id, proven.clone()));
    Ok(proven)
}
