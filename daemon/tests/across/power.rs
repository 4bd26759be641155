//! The power goes at any point of a migration with unsent edits: whatever the disk may hold then, what waits to be sent is
//! what waited before the migration or after it, with the archive that belongs to it, and the engine goes on to the same end.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use crashvfs::{Disk, Files, Loss, Moment, Op};
use whimbrel::{migrate::plan, store::managed, sync::shape::Mode};
use whimbrel_shared::status::Operation;

use crate::bed::{Bed, Published, files, publish, scratch};

const PERSON: &str = "CREATE TABLE person(id TEXT NOT NULL PRIMARY KEY, last TEXT, zip TEXT);";

/// What has to be the same before and after a power cut.
type State = (u32, Vec<String>, Vec<String>);

fn state(bed: &Bed<'_>) -> State {
    let history = managed::history(&bed.open().connection).unwrap();
    let waits =
        bed.dirty().into_iter().map(|(cell, dirt)| format!("{cell:?} {:?} {:?} {} {:?}", dirt.deed, dirt.edit.base, dirt.edit.stamp.seq, dirt.value));
    (plan::position(&history), waits.collect(), bed.archive().into_iter().map(|row| format!("{row:?}")).collect())
}

fn put(folder: &Path, files: &Files) {
    for (name, bytes) in files {
        std::fs::write(folder.join(name), bytes).unwrap();
    }
}

fn prove(published: &Published, dice: usize) {
    let mut bed = Bed::new(published);
    bed.go(Operation::Apply, 1, 1);
    bed.capture(1, Mode::Mask);
    let rows: Vec<String> = (0..40).map(|n| format!("('k{n}', 'l{n}', 'z{n}')")).collect();
    bed.app().execute_batch(&format!("INSERT INTO person VALUES {}", rows.join(", "))).unwrap();
    bed.acknowledge();
    let edits = "UPDATE person SET last = 'mine' WHERE id IN ('k1', 'k30'); UPDATE person SET zip = 'mine' WHERE id IN ('k2', 'k30');
        DELETE FROM person WHERE id = 'k3'; INSERT INTO person VALUES ('n1', 'new', 'new')";
    bed.app().execute_batch(edits).unwrap();
    let before = Disk::new(bed.path.parent().unwrap()).files();
    let first = state(&bed);

    let folder = scratch();
    put(folder.path(), &before);
    let disk = Disk::new(folder.path());
    let connection = disk.open("app.db").unwrap();
    connection.execute_batch("PRAGMA wal_autocheckpoint = 8").unwrap();
    bed.run_on(connection, 2);
    let log = disk.log();
    let open = |files: &Files| {
        let folder = scratch();
        put(folder.path(), files);
        bed.at(folder)
    };
    // What there is after each commit.
    let mut moment = Moment::of(&log.base);
    let mut states = vec![first];
    for op in &log.ops {
        moment.step(op);
        if *op == Op::Commit {
            states.push(state(&open(&moment.after(&Loss::Nothing))));
        }
    }
    let end = states.last().unwrap().clone();
    assert!(end.0 == 2 && states.iter().filter(|s| s.0 == 1).count() > 1);

    let (mut moment, mut acknowledged) = (Moment::of(&log.base), 0);
    let (mut images, mut resumed) = (0, BTreeSet::new());
    let mut seen: BTreeMap<Files, State> = BTreeMap::new();
    for at in 0..=log.ops.len() {
        for loss in moment.losses(dice) {
            images += 1;
            let files = moment.after(&loss);
            let place = || format!("before operation {at} of {}, losing {loss:?}", log.ops.len());
            let found = seen.entry(files.clone()).or_insert_with(|| {
                let image = open(&files);
                let found = state(&image);
                if resumed.insert(found.clone()) {
                    image.recover();
                    image.run_on(image.app(), 2);
                    let (position, waits, archive) = state(&image);
                    assert_eq!((position, &waits, &archive), (2, &end.1, &end.2), "{}: going on", place());
                }
                found
            });
            let allowed = &states[acknowledged..states.len().min(acknowledged + 2)];
            assert!(allowed.contains(found), "{}: {found:#?}\nis none of {allowed:#?}", place());
        }
        if let Some(op) = log.ops.get(at) {
            acknowledged += usize::from(*op == Op::Commit);
            moment.step(op);
        }
    }
    println!("{acknowledged} commits, {images} images ({} distinct), {} resumed", seen.len(), resumed.len());
}

#[test]
fn a_power_cut_leaves_the_outbox_of_before_or_of_after() {
    let dice = if std::env::var_os("WHIMBREL_NIGHT").is_some_and(|v| v == "1") { 12 } else { 1 };
    let up = "CREATE TABLE n(uuid TEXT NOT NULL PRIMARY KEY, family TEXT, suffix TEXT);
        INSERT INTO n SELECT 'u-' || id, 'f-' || last, 's-' || last FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\nkey = { uuid = \"'u-' || id\" }\ndrop = { id = 'discard', zip = 'archive' }\nsplit = { last = ['family', 'suffix'] }\n[sync.person]\nmin_schema = 'this'";
    prove(
        &publish(&files(&[("1_a/up.sql", PERSON), ("1_a/migration.toml", "[sync.person]"), ("2_b/up.sql", up), ("2_b/migration.toml", toml)])),
        dice,
    );
    let online = "mode = 'online'\ndestructive = true\n[[step]]\nsql = 'up.sql'\n[[step]]\nbackfill = 'person'\nbatch = 10\nset = \"family = 'f-' || last, suffix = 's-' || last\"\nwhere = \"family IS NOT 'f-' || last AND last IS NOT NULL\"\n[[step]]\nsql = 'drop.sql'\n[[carry]]\ntable = 'person'\nsplit = { last = ['family', 'suffix'] }";
    prove(
        &publish(&files(&[
            ("1_a/up.sql", PERSON),
            ("1_a/migration.toml", "[sync.person]"),
            ("2_b/up.sql", "ALTER TABLE person ADD family TEXT; ALTER TABLE person ADD suffix TEXT;"),
            ("2_b/drop.sql", "ALTER TABLE person DROP last; ALTER TABLE person DROP zip;"),
            ("2_b/migration.toml", online),
        ])),
        dice,
    );
}
