//! The disk is full, or broken, at any single call of a run. The engine says so, leaves exactly the state before or after
//! a commit, writes nothing outside a transaction, and comes to the same end when the disk is well again.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use crashvfs::{Disk, Fault, Files, Kind, Trouble, Watch};
use whimbrel_shared::status::FailureClass;
use whimbrel_tests::{
    features,
    lone_engine::Advanced,
    night,
    proof::{End, Journal, NAME, Proof, put, scratch},
};

/// Runs at once: the engine leaves gaps for the application, so that one run alone mostly sleeps.
const AT_ONCE: usize = 16;

#[test]
fn a_disk_that_fails_at_any_call_in_wal_mode_costs_nothing_but_time() {
    fail_everywhere(Journal::Wal);
}

#[test]
fn a_disk_that_fails_at_any_call_in_rollback_mode_costs_nothing_but_time() {
    fail_everywhere(Journal::Rollback);
}

fn fail_everywhere(journal: Journal) {
    let mut whole = Counts::default();
    for feature in features::all() {
        let name = feature.name;
        let proof = Proof::new(feature, journal);
        let before = proof.before();
        let wanted = undisturbed(&proof, &before);
        let mut counts = Counts::default();
        for sweep in sweeps() {
            counts.merge(run(&proof, &before, &wanted, &sweep));
        }
        counts.print(&format!("{journal:?}, {name}"));
        whole.merge(counts);
    }
    whole.print(&format!("{journal:?}, all"));
    assert!(whole.silent * 2 < whole.runs, "most faults were not noticed: they did not strike what matters");
}

/// What is tried at each call. At night everything; else every call fails in one of four ways, in turn.
fn sweeps() -> Vec<Vec<Fault>> {
    let fault = |trouble, stays, reads| Fault { at: 0, trouble, stays, reads };
    let all: Vec<_> = [Trouble::Full, Trouble::Io].into_iter().flat_map(|t| [fault(t, false, false), fault(t, true, false)]).collect();
    if !night() {
        return vec![all];
    }
    let reads = [fault(Trouble::Io, false, true), fault(Trouble::Io, true, true)];
    all.into_iter().chain(reads).map(|fault| vec![fault]).collect()
}

/// Strikes call after call, with each of `sweep` in turn, until the run is over before its fault is.
fn run(proof: &Proof, before: &Files, wanted: &End, sweep: &[Fault]) -> Counts {
    let counts = Mutex::new(Counts::default());
    let (next, over) = (AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !over.load(Relaxed) {
            let at = next.fetch_add(1, Relaxed);
            let fault = Fault { at, ..sweep[at % sweep.len()] };
            match strike(proof, before, fault, wanted) {
                Ok(None) => over.store(true, Relaxed),
                Ok(Some(outcome)) => counts.lock().unwrap().add(outcome),
                Err(why) => {
                    over.store(true, Relaxed);
                    panic!("{} ({:?}), {fault:?}: {why}", proof.feature.name, proof.journal);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(work);
        }
    });
    counts.into_inner().unwrap()
}

/// What the engine said of one fault.
struct Outcome {
    struck: Kind,
    code: Option<String>,
}

#[derive(Default)]
struct Counts {
    runs: usize,
    silent: usize,
    struck: BTreeMap<Kind, usize>,
    codes: BTreeMap<String, usize>,
}

impl Counts {
    fn add(&mut self, outcome: Outcome) {
        self.runs += 1;
        *self.struck.entry(outcome.struck).or_default() += 1;
        match outcome.code {
            Some(code) => *self.codes.entry(code).or_default() += 1,
            None => self.silent += 1,
        }
    }

    fn merge(&mut self, other: Self) {
        self.runs += other.runs;
        self.silent += other.silent;
        other.struck.into_iter().for_each(|(kind, n)| *self.struck.entry(kind).or_default() += n);
        other.codes.into_iter().for_each(|(code, n)| *self.codes.entry(code).or_default() += n);
    }

    fn print(&self, of: &str) {
        let Self { runs, silent, struck, codes } = self;
        eprintln!("{of}: {runs} faults {struck:?}, reported as {codes:?}, {silent} of no consequence");
    }
}

fn undisturbed(proof: &Proof, before: &Files) -> End {
    let folder = scratch();
    put(folder.path(), before);
    let mut file = proof.engine.adopt(Disk::new(folder.path()).open(NAME).unwrap()).unwrap();
    for at in 0..proof.feature.orders.len() {
        let done = proof.engine.advance(&mut file, proof.feature.orders[at], false).unwrap();
        proof.judge(&done, at).unwrap();
    }
    End::of(&file.connection)
}

/// One run with one fault in it, and another when it is over. `None`: the run has fewer calls than that.
fn strike(proof: &Proof, before: &Files, fault: Fault, wanted: &End) -> Result<Option<Outcome>, String> {
    let folder = scratch();
    put(folder.path(), before);
    let disk = Disk::new(folder.path());
    let connection = disk.open(NAME).map_err(|e| e.to_string())?;
    connection.execute_batch("PRAGMA wal_autocheckpoint = 8").map_err(|e| e.to_string())?;
    let watch = Watch::on(&connection);
    disk.fail(fault);

    let (mut failure, mut left_intent, mut order) = (None, false, 0);
    match proof.engine.adopt(connection) {
        Err(error) => failure = Some(error.failure()),
        Ok(mut file) => {
            while order < proof.feature.orders.len() {
                match proof.engine.advance(&mut file, proof.feature.orders[order], false) {
                    Err(error) => failure = Some(error.failure()),
                    Ok(done) if proof.judge(&done, order).is_ok() && !transient(&done) => {
                        order += 1;
                        continue;
                    }
                    Ok(Advanced::Ran(ran)) => {
                        left_intent = ran.left_intent;
                        failure = ran.stopped.map(|s| s.failure);
                    }
                    Ok(done) => return Err(format!("it came to {done:?}")),
                }
                break;
            }
        }
    }
    // Closing the file is part of the run: the last checkpoint.
    let struck = disk.mend();
    let alone = watch.found();
    if !alone.is_empty() {
        return Err(format!("outside a transaction it ran {alone:?}"));
    }
    proof.check(folder.path())?;
    if let Some(failure) = failure.as_ref().filter(|f| f.class != FailureClass::Transient) {
        return Err(format!("nobody would try it again after this: {failure:?}"));
    }
    proof.go_on(folder.path(), order.min(proof.feature.orders.len() - 1), left_intent, wanted)?;
    match (struck.first(), failure) {
        (None, None) => Ok(None),
        (None, Some(failure)) => Err(format!("nothing failed, and this was reported: {failure:?}")),
        (Some(kind), failure) => Ok(Some(Outcome { struck: *kind, code: failure.map(|f| f.code) })),
    }
}

/// Whether it was stopped by something that passes: what a feature that fails has to fail with does not.
fn transient(done: &Advanced) -> bool {
    matches!(done, Advanced::Ran(ran) if ran.stopped.as_ref().is_some_and(|s| s.failure.class == FailureClass::Transient))
}
