//! Capture and fold against random schemas and statements: a copy that is built only from the outbox and the rows as they
//! are must become what the application has (reference 2.2). `WHIMBREL_NIGHT=1` takes fifty times as many seeds, and
//! `WHIMBREL_SEED=N` one of them, with its statements.

mod classes;
mod driver;
mod mutation;
mod pitfalls;
mod replica;
mod schema;
mod statements;
mod world;

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering},
};

use mutation::Mutation;

/// Seeds from `first` on, on all cores. Returns those that diverged, at most `most`, with what was found.
fn run(first: u64, seeds: u64, mutation: Mutation, most: usize) -> Vec<(u64, String)> {
    let (next, found) = (AtomicU64::new(first), Mutex::new(Vec::new()));
    let workers = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= first + seeds || found.lock().unwrap().len() >= most {
                        break;
                    }
                    if let Err(what) = world::run(seed, mutation, false) {
                        found.lock().unwrap().push((seed, what));
                    }
                }
            });
        }
    });
    found.into_inner().unwrap()
}

#[test]
fn a_copy_built_from_the_outbox_and_the_rows_never_diverges() {
    if let Some(seed) = std::env::var("WHIMBREL_SEED").ok().and_then(|s| s.parse().ok()) {
        world::run(seed, Mutation::None, true).unwrap();
        return;
    }
    let night = std::env::var_os("WHIMBREL_NIGHT").is_some_and(|v| v == "1");
    let seeds = if night { 100_000 } else { 2_000 };
    let diverged = run(0, seeds, Mutation::None, 3);
    assert!(diverged.is_empty(), "{} of {seeds} seeds diverged, the first: {:#?}", diverged.len(), diverged);
}

fn caught(mutation: Mutation) {
    let diverged = run(0, 1_000, mutation, 1);
    assert!(!diverged.is_empty(), "1000 seeds did not notice {mutation:?}");
    assert!(diverged[0].1.starts_with("diverged"), "{diverged:?}");
    println!("{mutation:?} is noticed by seed {}: {}", diverged[0].0, diverged[0].1);
}

#[test]
fn without_the_probes_rows_that_replace_kills_are_missed_within_a_thousand_seeds() {
    caught(Mutation::NoProbe);
}

#[test]
fn without_binary_comparison_edits_are_missed_within_a_thousand_seeds() {
    caught(Mutation::NoCollation);
}

#[test]
fn without_comparing_storage_classes_edits_are_missed_within_a_thousand_seeds() {
    caught(Mutation::NoType);
}
