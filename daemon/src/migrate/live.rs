//! What is being done on a database right now, for `status` and `watch` while a migration runs.

use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use whimbrel_shared::{ids::MigrationName, status::Operation};

use super::perform::AtStep;

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
}

/// Written by the one that works, read by whoever watches. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Live(Arc<Mutex<Picture>>);

impl Live {
    /// Enters a phase.
    pub fn set(&self, phase: Phase) {
        let mut picture = self.lock();
        if phase == Phase::Idle {
            *picture = Picture::default();
        }
        picture.phase = phase;
    }

    /// Reached a statement.
    pub fn at(&self, at: AtStep) {
        let mut picture = self.lock();
        (picture.step, picture.steps, picture.statement) = (at.step, at.steps, at.statement);
    }

    /// Committed so many of so many.
    pub fn progress(&self, done: u32, total: u32) {
        let mut picture = self.lock();
        (picture.done, picture.total) = (done, total);
    }

    /// As it is now.
    pub fn picture(&self) -> Picture {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Picture> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
