//! The power goes while the daemon works on a database and on its own store. The two files are two promises: a report is
//! in the file with what it reports before it is copied to `device.db`, and whatever the disk kept of either, in the end
//! each report is there once and the file was never taken for another.

use std::{
    collections::HashSet,
    fs,
    path::Path,
    sync::{Arc, Mutex},
};

use crashvfs::{Disk, Files, Log, Moment};
use rusqlite::Connection;
use whimbrel::{
    config::DatabaseRule,
    migrate::{
        backup::Shelf,
        connection::Missing,
        halt::Halt,
        work::{self, Shared, Site, Task},
    },
    store::device::DeviceStore,
};
use whimbrel_shared::{ids::Digest, protocol::poll::Order};
use whimbrel_tests::{
    features,
    hash::content,
    proof::{Journal, NAME, Proof, put, reports, scratch},
    sample,
};

/// The daemon's own store, as it names it.
const STORE: &str = "device.db";

/// Runs at once: the engine leaves gaps for the application, so that one run alone mostly sleeps.
const AT_ONCE: usize = 8;

#[test]
fn a_power_cut_between_a_file_and_the_daemons_store_loses_and_doubles_no_report() {
    Disk::for_everybody();
    let mut whole = Counts::default();
    for journal in [Journal::Wal, Journal::Rollback] {
        for feature in features::all().into_iter().filter(|f| !f.fails && f.orders.len() == 1).take(sample(1, usize::MAX)) {
            let proof = Proof::new(feature, journal);
            let counted: Vec<Counts> = std::thread::scope(|scope| {
                let running: Vec<_> = (0..AT_ONCE).map(|nth| (&proof, nth)).map(|(proof, nth)| scope.spawn(move || prove(proof, nth))).collect();
                running.into_iter().map(|counts| counts.join().expect("what went wrong was said")).collect()
            });
            for Counts { images, distinct, behind } in counted {
                whole = Counts { images: whole.images + images, distinct: whole.distinct + distinct, behind: whole.behind + behind };
            }
        }
    }
    let Counts { images, distinct, behind } = whole;
    eprintln!("{images} images of two files ({distinct} distinct) taken up; in {behind} a report was yet to be copied");
    assert!(behind > 0, "no image fell between the file and the store");
}

/// What was looked at.
#[derive(Default)]
struct Counts {
    images: usize,
    distinct: usize,
    behind: usize,
}

/// Cuts the power at every eighth point of a run, from the `nth` on.
fn prove(proof: &Proof, nth: usize) -> Counts {
    let mut counts = Counts::default();
    // The daemon remembers where its databases lie, so that every image has to lie there too.
    let folder = scratch();
    let (log, wanted) = recorded(proof, folder.path());
    let mut seen = HashSet::new();
    let mut moment = Moment::of(&log.base);
    for at in 0..=log.ops.len() {
        for loss in moment.losses(sample(0, 6)).into_iter().filter(|_| at % AT_ONCE == nth) {
            counts.images += 1;
            let files = moment.after(&loss);
            if !seen.insert(files.clone()) {
                continue;
            }
            counts.distinct += 1;
            let place = || format!("{} ({:?}), before operation {at} of {}, losing {loss:?}", proof.feature.name, proof.journal, log.ops.len());
            lay(folder.path(), &files);
            counts.behind += usize::from(is_behind(folder.path()).unwrap_or_else(|why| panic!("{}: {why}", place())));
            let found = cycle(proof, folder.path()).unwrap_or_else(|why| panic!("{}: {why}", place()));
            assert!(found == wanted, "{}: another end", place());
        }
        log.ops.get(at).into_iter().for_each(|op| moment.step(op));
    }
    counts
}

/// One run of the daemon's work from the beginning, and what it comes to.
fn recorded(proof: &Proof, folder: &Path) -> (Log, Digest) {
    put(folder, &proof.before());
    let store = DeviceStore::open(folder).unwrap();
    for target in proof.engine.accepted() {
        assert!(store.accept(proof.engine.app(), &target).unwrap());
    }
    drop(store);
    let disk = Disk::new(folder);
    let wanted = cycle(proof, folder).unwrap();
    (disk.log(), wanted)
}

/// What the daemon does for one database, from its start on: look, advance, look again. Returns the application's content.
fn cycle(proof: &Proof, folder: &Path) -> Result<Digest, String> {
    let store = Arc::new(Mutex::new(DeviceStore::open(folder).map_err(|e| e.to_string())?));
    let ambient = proof.engine.ambient().clone();
    let shelf = Shelf { dir: folder.join("backups"), keep: 3 };
    let shared = Shared { store: store.clone(), state_dir: folder.to_owned(), ambient, policy: proof.engine.policy, halt: Halt::default(), shelf };
    let rule = DatabaseRule {
        path: folder.join(NAME).to_string_lossy().into_owned(),
        app: proof.engine.app().clone(),
        app_version: None,
        app_sqlite: None,
        create: false,
        capture: Default::default(),
    };
    let site = Site::new(folder.join(NAME), rule);
    let chain = proof.engine.chain();
    let look = || work::look(&shared, &site, chain, Missing::Refuse).map_err(|item| format!("it cannot be looked at: {item:?}"));

    let task = Task { order: Some(Order::ApplyUpTo { version: chain.latest() }), ..Task::default() };
    let advanced = work::advance(&shared, &site, &look()?, chain, &task);
    if let Some(why) = advanced.health.first() {
        return Err(format!("it stands still: {why:?}"));
    }
    let looked = look()?;
    if (looked.position, looked.identity.epoch) != (chain.latest(), 1) {
        return Err(format!("it stands at version {} and was taken for a file that went back: epoch {}", looked.position, looked.identity.epoch));
    }
    let file = Connection::open(&site.path).map_err(|e| e.to_string())?;
    let in_file: Vec<String> = reports(&file).into_iter().map(|(id, _)| id).collect();
    let unsent = store.lock().expect("nobody panicked with it").unsent(1_000).map_err(|e| e.to_string())?;
    let in_store: Vec<String> = unsent.into_iter().map(|event| event.event_id.to_string()).collect();
    if in_file != in_store {
        return Err(format!("the file has {in_file:?} and the store {in_store:?}"));
    }
    Ok(content(&file))
}

/// Whether a report waits to be copied. That the store has one which the file has not is an error.
fn is_behind(folder: &Path) -> Result<bool, String> {
    let in_file: Vec<String> = reports(&Connection::open(folder.join(NAME)).map_err(|e| e.to_string())?).into_iter().map(|(id, _)| id).collect();
    let store = Connection::open(folder.join(STORE)).map_err(|e| e.to_string())?;
    let integrity: String = store.query_row("PRAGMA integrity_check", [], |row| row.get(0)).map_err(|e| e.to_string())?;
    let mut statement = store.prepare("SELECT event_id FROM report ORDER BY seq").map_err(|e| e.to_string())?;
    let in_store: Vec<String> = statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).map_err(|e| e.to_string())?;
    match (integrity.as_str(), in_file.starts_with(&in_store)) {
        ("ok", true) => Ok(in_file.len() > in_store.len()),
        ("ok", false) => Err(format!("the store has {in_store:?}, and the file only {in_file:?}")),
        (damage, _) => Err(format!("device.db: {damage}")),
    }
}

/// Puts `files` into the folder, in place of all that lies there.
fn lay(folder: &Path, files: &Files) {
    for entry in fs::read_dir(folder).unwrap() {
        fs::remove_file(entry.unwrap().path()).unwrap();
    }
    put(folder, files);
}
