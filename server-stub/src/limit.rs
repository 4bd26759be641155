//! How many failed enrolments one peer may make, and how many secrets it may send that nobody has. In memory: a restart forgives.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
};

/// Failures per window. Generous, since a whole site may stand behind one address.
const MOST: u32 = 30;
const WINDOW_MS: i64 = 60_000;
/// Most peers remembered at once.
const PEERS: usize = 10_000;

/// Counts failures per address.
#[derive(Default)]
pub(crate) struct Failures(Mutex<HashMap<IpAddr, Window>>);

#[derive(Clone, Copy)]
struct Window {
    began_ms: i64,
    count: u32,
}

impl Failures {
    /// Seconds that `peer` has to wait before its next try; none when it may try now.
    pub(crate) fn wait_s(&self, peer: IpAddr, now_ms: i64) -> Option<i64> {
        let peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let window = peers.get(&peer)?;
        let left_ms = window.began_ms + WINDOW_MS - now_ms;
        (window.count >= MOST && left_ms > 0).then_some(left_ms / 1000 + 1)
    }

    /// Records a failure.
    pub(crate) fn note(&self, peer: IpAddr, now_ms: i64) {
        let mut peers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= PEERS && !peers.contains_key(&peer) {
            peers.retain(|_, w| now_ms - w.began_ms < WINDOW_MS);
            if peers.len() >= PEERS {
                // An attack from ten thousand addresses is not stopped by counting addresses; memory is.
                peers.clear();
            }
        }
        let fresh = Window { began_ms: now_ms, count: 0 };
        let window = peers.entry(peer).or_insert(fresh);
        if now_ms - window.began_ms >= WINDOW_MS {
            *window = fresh;
        }
        window.count = window.count.saturating_add(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_fails_too_often_waits_for_its_window_to_end() {
        let failures = Failures::default();
        let (bad, good) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        for _ in 0..MOST {
            assert_eq!(failures.wait_s(bad, 1_000), None);
            failures.note(bad, 1_000);
        }
        assert_eq!(failures.wait_s(bad, 1_000), Some(61));
        assert_eq!(failures.wait_s(good, 1_000), None);
        assert_eq!(failures.wait_s(bad, 61_000), None);
        failures.note(bad, 61_000);
        assert_eq!(failures.wait_s(bad, 61_000), None);
    }

    #[test]
    fn many_peers_do_not_fill_the_memory() {
        let failures = Failures::default();
        for n in 0..3 * PEERS as u32 {
            failures.note(IpAddr::from(n.to_be_bytes()), 5);
        }
        assert!(failures.0.lock().unwrap().len() <= PEERS);
    }
}
