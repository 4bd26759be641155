//! What takes rows up, for one transaction: read from what is published, and given back for the next one.

use std::{
    collections::HashMap,
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::Transaction;
use tracing::warn;
use whimbrel_shared::{
    ids::{AppName, Digest},
    migration::Targets,
};

use super::{parsed, repository};
use crate::{
    lift::{Bench, Lifter, Plan},
    store::StoreError,
};

/// The ways up of a few apps, and databases to take rows up in that nobody uses now.
#[derive(Clone, Default)]
pub(super) struct Lifts(Arc<Mutex<HashMap<AppName, Kept>>>);

/// Most apps whose way up is kept at hand.
const AT_HAND: usize = 16;

struct Kept {
    /// Of the targets from which it was read.
    digest: Digest,
    plan: Arc<Plan>,
    free: Vec<Bench>,
}

impl Lifts {
    /// The way up of an app as it is published now.
    pub(super) fn of(&self, tx: &Transaction<'_>, app: &AppName) -> Result<Lifting, StoreError> {
        let mut query = tx.prepare_cached("SELECT targets_digest FROM app WHERE name = ?1")?;
        let digest: Digest = query.query_row([app.as_str()], |row| parsed(row, 0))?;
        if let Some(kept) = self.kept().get_mut(app).filter(|kept| kept.digest == digest) {
            let lifter = Lifter::new(Arc::clone(&kept.plan), kept.free.pop().unwrap_or_default());
            return Ok(Lifting { lifter: Some(lifter), home: self.clone(), app: app.clone(), digest });
        }
        let bytes: Vec<u8> = tx.query_row("SELECT targets FROM app WHERE name = ?1", [app.as_str()], |row| row.get(0))?;
        let targets: Targets = serde_json::from_slice(&bytes).map_err(|e| StoreError::Damaged(format!("the targets of {app}: {e}")))?;
        let (plan, wrong) = Plan::of(&targets, |entry| {
            let found = repository::target(tx, app, &entry.path())?;
            found.map(|(_, body)| body).ok_or_else(|| StoreError::Damaged(format!("the target file {} of {app} is not there", entry.path())))
        })?;
        wrong.iter().for_each(|why| warn!("rows of older versions of {app} are not taken up by a step: {why}"));
        let plan = Arc::new(plan);
        let mut all = self.kept();
        if all.len() >= AT_HAND {
            all.clear();
        }
        all.insert(app.clone(), Kept { digest, plan: Arc::clone(&plan), free: Vec::new() });
        Ok(Lifting { lifter: Some(Lifter::new(plan, Bench::default())), home: self.clone(), app: app.clone(), digest })
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, HashMap<AppName, Kept>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A lifter in use.
pub(super) struct Lifting {
    lifter: Option<Lifter>,
    home: Lifts,
    app: AppName,
    digest: Digest,
}

impl Deref for Lifting {
    type Target = Lifter;
    fn deref(&self) -> &Lifter {
        self.lifter.as_ref().expect("it is there until it is dropped")
    }
}

impl DerefMut for Lifting {
    fn deref_mut(&mut self) -> &mut Lifter {
        self.lifter.as_mut().expect("it is there until it is dropped")
    }
}

impl Drop for Lifting {
    fn drop(&mut self) {
        let Some(lifter) = self.lifter.take() else { return };
        if let Some(kept) = self.home.kept().get_mut(&self.app).filter(|kept| kept.digest == self.digest) {
            kept.free.push(lifter.into_bench());
        }
    }
}
