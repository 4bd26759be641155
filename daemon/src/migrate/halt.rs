//! How work is stopped. Softly: finish this transaction, start no other. Hard: roll it back now.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

/// The three switches that stop work on one database. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Halt {
    /// The daemon ends: no transaction is begun any more.
    pub stop: Arc<AtomicBool>,
    /// The daemon's patience with its own end is over: what is open is rolled back.
    pub kill: Arc<AtomicBool>,
    /// A person wants this database left alone: what is open is rolled back.
    pub hold: Arc<AtomicBool>,
}

impl Halt {
    /// Whether nothing may be begun, or waited for.
    pub fn no_more(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.abort()
    }

    /// Whether what is open is to be rolled back.
    pub fn abort(&self) -> bool {
        self.kill.load(Ordering::Relaxed) || self.hold.load(Ordering::Relaxed)
    }
}
