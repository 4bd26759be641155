//! Waiting for what is expected, with a limit.

use std::{
    fmt::Debug,
    time::{Duration, Instant},
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Waits until `look` finds something. Panics after `limit`, saying what was waited for.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `look` gives `wanted`. Panics after `limit` with what it gave last.
#[track_caller]
pub fn until_eq<T: PartialEq + Debug>(limit: Duration, what: &str, wanted: T, mut look: impl FnMut() -> T) {
    let begun = Instant::now();
    loop {
        let last = look();
        if last == wanted {
            return;
        }
        assert!(begun.elapsed() < limit, "waited {limit:?} in vain: {what}: wanted {wanted:?}, last {last:?}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Lets a chosen moment pass: for faults that strike at a time, and for showing that within a time nothing happened.
/// Never for hoping that something has happened.
pub fn moment(length: Duration) {
    std::thread::sleep(length);
}
