//! The power goes at any point of a run. Whatever the disk may hold then is opened: it is exactly the state before or
//! after a commit, no commit that was acknowledged is forgotten, and the engine goes on from there to the same end. A chunk's
//! COMMIT is acknowledged when the log is synced after it, which is before anything else is written; every other one at once.

use std::collections::{BTreeSet, HashMap};

use crashvfs::{Disk, Files, Log, Loss, Moment, Op};
use rusqlite::Connection;
use whimbrel::{
    migrate::plan::{self, History},
    store::managed,
};
use whimbrel_shared::ids::Digest;
use whimbrel_tests::{
    features::{self, Feature},
    hash::everything,
    night,
    proof::{End, Journal, NAME, Proof, put, scratch},
    sample,
};

/// Rows of one transaction: the largest `batch` of the features that run online.
const LARGEST_BATCH: u64 = 20;

#[test]
fn a_power_cut_in_wal_mode_leaves_the_old_or_the_new_state() {
    prove_all(Journal::Wal);
}

#[test]
fn a_power_cut_in_rollback_mode_leaves_the_old_or_the_new_state() {
    prove_all(Journal::Rollback);
}

#[test]
fn a_second_power_cut_while_the_first_is_recovered_does_no_harm() {
    let depth = Depth { dice: sample(2, 4), resume_all: false };
    let mut whole = Counts::default();
    for journal in [Journal::Wal, Journal::Rollback] {
        let all = features::all().into_iter().take(sample(1, usize::MAX)).collect();
        for (_, counts) in at_once(all, |feature| {
            let (proof, mut counts, mut judged) = (Proof::new(feature, journal), Counts::default(), Judged::default());
            let first = run(&proof, &Start { files: proof.before(), order: 0 });
            // Just after each commit but the last: the intent is there, and nobody holds the lock.
            let commits: Vec<_> = (1..=first.log.ops.len()).filter(|at| first.log.ops[at - 1] == Op::Commit).collect();
            for at in commits.iter().take(commits.len() - 1).step_by(sample(3, 1)) {
                let mut moment = Moment::of(&first.log.base);
                first.log.ops[..*at].iter().for_each(|op| moment.step(op));
                let start = Start { files: moment.after(&Loss::Nothing), order: first.order_at(*at) };
                prove(&proof, &run(&proof, &start), depth, &mut judged, &mut counts);
            }
            counts
        }) {
            whole.add(&counts);
        }
    }
    whole.print("second cut");
}

fn prove_all(journal: Journal) {
    let depth = Depth { dice: sample(2, 12), resume_all: night() };
    let mut all = features::all();
    if night() {
        all.extend(features::all().into_iter().map(|f| Feature { grouping: !f.grouping, ..f }));
        all.push(features::whole());
    }
    let mut whole = Counts::default();
    for (name, counts) in at_once(all, |feature| {
        let (proof, mut counts) = (Proof::new(feature, journal), Counts::default());
        prove(&proof, &run(&proof, &Start { files: proof.before(), order: 0 }), depth, &mut Judged::default(), &mut counts);
        counts
    }) {
        counts.print(&format!("{journal:?}, {name}"));
        whole.add(&counts);
    }
    whole.print(&format!("{journal:?}, all"));
}

/// Looks at all of them side by side; what they counted comes in their order.
fn at_once(all: Vec<Feature>, look: impl Fn(Feature) -> Counts + Sync) -> Vec<(&'static str, Counts)> {
    std::thread::scope(|scope| {
        let look = &look;
        let running: Vec<_> = all.into_iter().map(|feature| (feature.name, scope.spawn(move || look(feature)))).collect();
        running.into_iter().map(|(name, counts)| (name, counts.join().unwrap_or_else(|_| panic!("{name}: see above")))).collect()
    })
}

/// How much is looked at.
#[derive(Clone, Copy)]
struct Depth {
    /// Throws of the dice at each point.
    dice: usize,
    /// Whether the engine goes on from every file that differs by a byte once SQLite has recovered it, and not only once
    /// from every content.
    resume_all: bool,
}

/// What was judged before, of one feature: nothing is judged twice.
#[derive(Default)]
struct Judged {
    /// The content that was found in an image, by its bytes and the order that was carried out.
    seen: HashMap<(Digest, usize), Digest>,
    /// What the engine went on from: bytes after the recovery, or content.
    resumed: BTreeSet<(Digest, usize)>,
    /// What it has to come to.
    end: Option<End>,
}

/// What was looked at.
#[derive(Default)]
struct Counts {
    points: usize,
    images: usize,
    distinct: usize,
    resumed: usize,
    commits: usize,
    /// Most rows of an online migration that were under way in a transaction and had to be done again.
    redone: u64,
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.points += other.points;
        self.images += other.images;
        self.distinct += other.distinct;
        self.resumed += other.resumed;
        self.commits += other.commits;
        self.redone = self.redone.max(other.redone);
    }

    fn print(&self, of: &str) {
        let Self { points, images, distinct, resumed, commits, redone } = self;
        eprintln!(
            "{of}: {commits} commits, {points} points, {images} images ({distinct} distinct) checked, {resumed} resumed to the same end, at most {redone} rows done again"
        );
    }
}

/// Where a run begins.
struct Start {
    files: Files,
    /// Which of the feature's orders is the first.
    order: usize,
}

/// A run that was recorded.
struct Recorded {
    log: Log,
    /// Where in the log each order began, from the run's first on.
    orders: Vec<(usize, usize)>,
    /// The whole content at the beginning and after each commit.
    states: Vec<Digest>,
    /// Rows that the online migration under way said it had changed, then.
    changed: Vec<Option<u64>>,
    /// What it came to.
    end: End,
}

impl Recorded {
    /// The order that was carried out at a point of the log.
    fn order_at(&self, at: usize) -> usize {
        // What opening the file writes comes before the first.
        self.orders.iter().rev().find(|(began, _)| *began <= at).unwrap_or(&self.orders[0]).1
    }
}

/// Carries out the feature's orders on a disk that is recorded.
fn run(proof: &Proof, start: &Start) -> Recorded {
    let folder = scratch();
    put(folder.path(), &start.files);
    let disk = Disk::new(folder.path());
    let connection = disk.open(NAME).unwrap();
    // Often, so that the log has checkpoints in the middle of the chain too.
    connection.execute_batch("PRAGMA wal_autocheckpoint = 8").unwrap();
    let mut file = proof.engine.adopt(connection).unwrap();
    let mut orders = Vec::new();
    for at in start.order..proof.feature.orders.len() {
        orders.push((disk.log().ops.len(), at));
        let done = proof.engine.advance(&mut file, proof.feature.orders[at], false).unwrap();
        proof.judge(&done, at).unwrap();
    }
    let end = End::of(&file.connection);
    drop(file);
    let log = disk.log();
    let (states, changed) = states(&log);
    Recorded { log, orders, states, changed, end }
}

/// Cuts the power at every point of a run.
fn prove(proof: &Proof, run: &Recorded, depth: Depth, judged: &mut Judged, counts: &mut Counts) {
    let name = proof.feature.name;
    let mut moment = Moment::of(&run.log.base);
    let (mut committed, mut acknowledged, mut unsynced) = (0, 0, false);
    if judged.end.as_ref() != Some(&run.end) {
        *judged = Judged { end: Some(run.end.clone()), ..Judged::default() };
    }
    for at in 0..=run.log.ops.len() {
        counts.points += 1;
        let order = run.order_at(at);
        for loss in moment.losses(depth.dice) {
            counts.images += 1;
            let files = moment.after(&loss);
            let place = || {
                let next = run.log.ops.get(at).map_or_else(|| "the end".to_owned(), ToString::to_string);
                format!("{name} ({:?}), before operation {at} of {} ({next}), losing {loss:?}", proof.journal, run.log.ops.len())
            };
            let found = *judged.seen.entry((digest(&files), order)).or_insert_with(|| {
                counts.distinct += 1;
                let folder = scratch();
                put(folder.path(), &files);
                let found = proof.check(folder.path()).unwrap_or_else(|why| panic!("{}: {why}", place()));
                // Who looked has recovered the file; what the engine finds is what lies there now.
                let from = if depth.resume_all { digest(&crashvfs::Disk::new(folder.path()).files()) } else { found };
                if judged.resumed.insert((from, order)) {
                    counts.resumed += 1;
                    proof.go_on(folder.path(), order, false, &run.end).unwrap_or_else(|why| panic!("{}: going on: {why}", place()));
                }
                found
            });
            let allowed = &run.states[acknowledged..run.states.len().min(acknowledged + 2)];
            assert!(allowed.contains(&found), "{}: neither the state of commit {acknowledged} nor the next: {}", place(), {
                run.states.iter().position(|s| *s == found).map_or("one that never was".to_owned(), |n| format!("that of commit {n}"))
            });
            // What was in the transaction that was cut off is done again, and nothing that was committed before it.
            let kept = if found == run.states[acknowledged] { acknowledged } else { acknowledged + 1 };
            if let (Some(Some(under_way)), Some(had)) = (run.changed.get(acknowledged + 1), run.changed[kept]) {
                let again = under_way.saturating_sub(had);
                assert!(again <= LARGEST_BATCH, "{}: {again} rows are done again", place());
                counts.redone = counts.redone.max(again);
            }
        }
        if let Some(op) = run.log.ops.get(at) {
            match op {
                Op::Write { file, .. } if file.ends_with("-wal") => unsynced = true,
                Op::Sync { file } if file.ends_with("-wal") => unsynced = false,
                Op::Commit => committed += 1,
                _ => {}
            }
            if !unsynced {
                acknowledged = committed;
            }
            assert!(committed <= acknowledged + 1, "{name}: two commits, and the log not synced between them");
            assert!(committed == acknowledged || run.changed[committed].is_some(), "{name}: commit {committed} is no chunk's, and not synced");
            moment.step(op);
        }
    }
    assert_eq!(acknowledged, committed, "{name}");
    counts.commits += acknowledged;
}

/// The whole content after 0, 1, 2 … commits, had only the process died there, and how far a migration under way had come. On the way it is looked whether what was
/// about to run was written down before it ran.
fn states(log: &Log) -> (Vec<Digest>, Vec<Option<u64>>) {
    let mut moment = Moment::of(&log.base);
    let state = |moment: &Moment| {
        let folder = scratch();
        put(folder.path(), &moment.after(&Loss::Nothing));
        let file = Connection::open(folder.path().join(NAME)).unwrap();
        let prepared = managed::is_prepared(&file).unwrap();
        let history = if prepared { managed::history(&file).unwrap() } else { History::default() };
        let intent = prepared && managed::intent(&file).unwrap().is_some();
        let changed = file.query_row("SELECT changed FROM _whimbrel_checkpoint", [], |row| row.get::<_, i64>(0)).map(i64::unsigned_abs).ok();
        (everything(&file), plan::position(&history), intent, changed)
    };
    let mut states = vec![state(&moment)];
    for op in &log.ops {
        moment.step(op);
        if *op == Op::Commit {
            states.push(state(&moment));
        }
    }
    for (commit, two) in states.windows(2).enumerate() {
        let [(_, before, intent, _), (_, after, ..)] = two else { unreachable!("windows of two") };
        assert!(before == after || *intent, "commit {commit} took version {before} to {after}, and no intent said so");
    }
    states.into_iter().map(|(all, _, _, changed)| (all, changed)).unzip()
}

fn digest(files: &Files) -> Digest {
    let mut all = Vec::new();
    for (name, bytes) in files {
        for part in [name.as_bytes(), bytes] {
            all.extend_from_slice(&part.len().to_le_bytes());
            all.extend_from_slice(part);
        }
    }
    Digest::of(&all)
}
