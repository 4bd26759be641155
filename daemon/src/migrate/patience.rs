//! Waiting for the application: our own busy handler, visible and cancellable (DESIGN 8.8). SQLite's own gives up after
//! seconds and cannot be stopped.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::halt::Halt;

/// Longest pause between two tries: a cancel is seen within it, well under 200 ms.
const LONGEST_PAUSE_MS: u64 = 50;

/// How long a connection waits when the application holds the lock. Shared with the busy handler; cheap to clone.
#[derive(Clone, Debug)]
pub struct Patience(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    halt: Halt,
    /// Whether a halt ends the wait.
    stoppable: AtomicBool,
    /// What is allowed now, in milliseconds from the first refusal.
    limit_ms: AtomicU64,
    /// Since when it has been waited, in milliseconds after `birth`, plus one; 0 when it is not waiting.
    since_ms: AtomicU64,
    birth: Instant,
}

impl Patience {
    /// Waits up to `limit`, or until `halt` says not to.
    pub fn new(halt: Halt, limit: Duration) -> Self {
        let patience = Self(Arc::new(Shared {
            halt,
            stoppable: AtomicBool::new(true),
            limit_ms: AtomicU64::new(0),
            since_ms: AtomicU64::new(0),
            birth: Instant::now(),
        }));
        patience.set_limit(limit);
        patience
    }

    /// Changes how long is waited from now on.
    pub fn set_limit(&self, limit: Duration) {
        self.0.limit_ms.store(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Whether a halt ends the waits from now on.
    pub fn set_stoppable(&self, stoppable: bool) {
        self.0.stoppable.store(stoppable, Ordering::Relaxed);
    }

    /// How long it has been waiting now, if it is.
    pub fn waiting(&self) -> Option<Duration> {
        match self.0.since_ms.load(Ordering::Relaxed) {
            0 => None,
            since => Some(self.0.birth.elapsed().saturating_sub(Duration::from_millis(since - 1))),
        }
    }

    /// The lock was got, or given up.
    pub fn over(&self) {
        self.0.since_ms.store(0, Ordering::Relaxed);
    }

    /// The busy handler: sleeps a little and says whether to try again. `refusals` counts from 0 for each wait.
    pub fn handle(&self, refusals: i32) -> bool {
        let now_ms = u64::try_from(self.0.birth.elapsed().as_millis()).unwrap_or(u64::MAX);
        if refusals == 0 {
            self.0.since_ms.store(now_ms + 1, Ordering::Relaxed);
        }
        let waited_ms = (now_ms + 1).saturating_sub(self.0.since_ms.load(Ordering::Relaxed));
        if (self.0.stoppable.load(Ordering::Relaxed) && self.0.halt.no_more()) || waited_ms >= self.0.limit_ms.load(Ordering::Relaxed) {
            return false;
        }
        crate::ambient::pulse();
        std::thread::sleep(pause(refusals, waited_ms));
        true
    }
}

/// Pause before try `refusals` + 1. Grows to [`LONGEST_PAUSE_MS`]; its low bits come from the time waited, so that two
/// daemons that were refused together do not come back together. Pure.
fn pause(refusals: i32, waited_ms: u64) -> Duration {
    let full = 1u64 << refusals.clamp(0, 5);
    Duration::from_millis((full + waited_ms % 7).min(LONGEST_PAUSE_MS))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cancel_ends_the_wait_within_200_ms() {
        let halt = Halt::default();
        let patience = Patience::new(halt.clone(), Duration::from_secs(3600));
        assert!(patience.handle(0) && patience.waiting().is_some());
        halt.stop.store(true, Ordering::Relaxed);
        assert!(!patience.handle(1));
        assert!((0..100).all(|n| pause(n, n as u64) <= Duration::from_millis(LONGEST_PAUSE_MS)));
    }

    #[test]
    fn the_limit_counts_from_the_first_refusal() {
        let patience = Patience::new(Halt::default(), Duration::from_millis(30));
        let begun = Instant::now();
        let mut tries = 0;
        while patience.handle(tries) {
            tries += 1;
        }
        assert!(begun.elapsed() >= Duration::from_millis(30) && begun.elapsed() < Duration::from_secs(2));
    }
}
