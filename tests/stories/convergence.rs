//! Whatever happens to files, clocks and the wire: everybody has the same rows in the end, and every value that somebody
//! wrote is accounted for. `WHIMBREL_SEED=N` plays one seed, with `WHIMBREL_STORY=1` it is told; `WHIMBREL_SEEDS=A..B` some.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use whimbrel_tests::{sample, sim};

/// Failures after which no more seeds are played; `WHIMBREL_FAILURES` says otherwise.
const ENOUGH: usize = 12;

/// Plays seeds on all cores. Returns those that fail, and what was counted.
fn play(from: u64, to: u64) -> (BTreeMap<u64, String>, BTreeMap<&'static str, u64>) {
    let next = AtomicU64::new(from);
    let enough = std::env::var("WHIMBREL_FAILURES").ok().and_then(|n| n.parse().ok()).unwrap_or(ENOUGH);
    let failed: Mutex<BTreeMap<u64, String>> = Mutex::default();
    let counts = Mutex::new(BTreeMap::new());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Relaxed);
                    if seed >= to || failed.lock().unwrap().len() >= enough {
                        return;
                    }
                    match sim::run(seed) {
                        Ok(outcome) => {
                            let mut counts = counts.lock().unwrap();
                            for (what, how_often) in outcome.counts {
                                *counts.entry(what).or_default() += how_often;
                            }
                        }
                        Err(why) => {
                            eprintln!("{why}");
                            failed.lock().unwrap().insert(seed, why);
                        }
                    }
                }
            });
        }
    });
    (failed.into_inner().unwrap(), counts.into_inner().unwrap())
}

#[test]
fn everybody_has_the_same_in_the_end_and_nothing_is_lost() {
    let number = |name: &str| std::env::var(name).ok();
    let (from, to) = match (number("WHIMBREL_SEED"), number("WHIMBREL_SEEDS")) {
        (Some(one), _) => {
            let seed = one.parse::<u64>().expect("WHIMBREL_SEED is a number");
            (seed, seed + 1)
        }
        (None, Some(range)) => {
            let (from, to) = range.split_once("..").expect("WHIMBREL_SEEDS is A..B");
            (from.parse().expect("a number"), to.parse().expect("a number"))
        }
        (None, None) => (0, sample(500, 20_000) as u64),
    };
    let (failed, counts) = play(from, to);
    println!("{} seeds: {counts:?}", to - from);
    assert!(failed.is_empty(), "{}", failed.into_values().collect::<Vec<_>>().join("\n"));
}

#[test]
fn a_seed_gives_the_same_requests_answers_and_rows_every_time() {
    for seed in 0..10 {
        let twice = [sim::run(seed), sim::run(seed)];
        assert_eq!(twice[0], twice[1], "{seed}");
    }
}
