//! What is being done on a database right now, for `status` and `watch` while a migration runs.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{ids::MigrationName, status::Operation};

use super::{
    backup::copy::Pages,
    patience::Patience,
    perform::{AtStep, Performed},
};

/// What is being done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "snake_case")]
pub enum Phase {
    /// Nothing.
    #[default]
    Idle,
    /// Looking before anything is touched.
    Preflight,
    /// Asking for the write lock.
    Waiting,
    /// A migration's statements run.
    Running {
        /// Its version.
        version: u32,
        /// Its name.
        name: MigrationName,
        /// Which way.
        operation: Operation,
    },
    /// They ran, and are being judged and committed.
    Committing,
    /// The file is being copied, for a backup or a rehearsal.
    Copying(Pages),
    /// A backup is being written back.
    Restoring(Pages),
}

/// A picture of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// What.
    #[serde(flatten)]
    pub phase: Phase,
    /// Number of the step and how many there are.
    pub step: usize,
    /// How many steps there are.
    pub steps: usize,
    /// Number of the statement.
    pub statement: usize,
    /// Migrations of this run that are committed.
    pub done: u32,
    /// Migrations of this run.
    pub total: u32,
    /// How far a row step has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<Rows>,
}

/// How far a `backfill` or `load` step has come.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rows {
    /// The table.
    pub table: String,
    /// Rows looked at.
    pub done: u64,
    /// Rows there were when it began, about.
    pub total: u64,
    /// Rows changed or put in.
    pub changed: u64,
    /// Rows that needed nothing.
    pub skipped: u64,
    /// Rows that failed and were left.
    pub failed: u64,
    /// Rows a second, lately.
    pub rate: u64,
    /// Milliseconds that are left at that rate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left_ms: Option<u64>,
    /// Why it is slower than it could be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle: Option<Throttle>,
}

/// Why a row step leaves gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Throttle {
    /// The application writes.
    App,
    /// A reader keeps the write-ahead log from being emptied.
    Wal,
    /// The application changes rows as fast as they are looked at again.
    Touched,
}

/// Written by the one that works, read by whoever watches. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Live {
    now: Arc<Mutex<(Picture, Option<Patience>)>>,
    /// What the steps of each version did, at their last run.
    performed: Arc<Mutex<BTreeMap<u32, Performed>>>,
    /// Whether the last run could not clear its intent.
    pub left_intent: Arc<AtomicBool>,
    /// Set by a person who wants the database left alone.
    pub hold: Arc<AtomicBool>,
}

impl Live {
    /// Enters a phase.
    pub fn set(&self, phase: Phase) {
        let mut now = self.lock();
        if phase == Phase::Idle {
            *now = Default::default();
        }
        now.0.phase = phase;
    }

    /// Reached a statement.
    pub fn at(&self, at: AtStep) {
        let picture = &mut self.lock().0;
        (picture.step, picture.steps, picture.statement) = (at.step, at.steps, at.statement);
    }

    /// Ran the steps of `version`; whether it is committed is told elsewhere.
    pub fn performed(&self, version: u32, performed: Performed) {
        self.performed.lock().unwrap_or_else(PoisonError::into_inner).insert(version, performed);
    }

    /// What the steps of `version` did when they last ran here.
    pub fn what(&self, version: u32) -> Option<Performed> {
        self.performed.lock().unwrap_or_else(PoisonError::into_inner).get(&version).cloned()
    }

    /// Committed so many of so many.
    pub fn progress(&self, done: u32, total: u32) {
        let picture = &mut self.lock().0;
        (picture.done, picture.total) = (done, total);
    }

    /// A row step has come so far; none: it is over.
    pub fn rows(&self, rows: Option<Rows>) {
        self.lock().0.rows = rows;
    }

    /// As it is now.
    pub fn picture(&self) -> Picture {
        self.lock().0.clone()
    }

    /// Watches how long the connection that works now waits for the application.
    pub fn watch(&self, patience: Patience) {
        self.lock().1 = Some(patience);
    }

    /// How long it has been waiting for the application, if it is.
    pub fn waiting(&self) -> Option<std::time::Duration> {
        self.lock().1.as_ref().and_then(Patience::waiting)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, (Picture, Option<Patience>)> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
