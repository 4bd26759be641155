//! Rows between databases and their space.

use whimbrel_tests::{
    Mig,
    replica::{Replica, Space, settle},
};

fn notes() -> Vec<Mig> {
    vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE note(id TEXT PRIMARY KEY NOT NULL, title TEXT, body, stars INTEGER DEFAULT 0);
             CREATE TABLE item(id INTEGER PRIMARY KEY, note TEXT REFERENCES note(id), text TEXT, code TEXT UNIQUE)",
        )
        .toml("[sync.note]\nconflict = \"merge\"\nkeys = \"global\"\n[sync.item]\nconflict = \"keep-newest\"\nkeys = \"renumber\"\n"),
    ]
}

#[test]
fn what_one_writes_the_other_has() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO note VALUES ('n1', 'one', x'00ff', 1), ('n2', 'two', 1.5, NULL); INSERT INTO item VALUES (1, 'n1', 'first', 'c1')");
    settle(&space, &[&a, &b]);
    for sql in ["SELECT * FROM note ORDER BY id", "SELECT * FROM item ORDER BY id"] {
        assert_eq!(a.table(sql), b.table(sql));
        assert!(!b.table(sql).is_empty());
    }
    // Edits of different columns merge, deletions arrive, values move between rows.
    a.write("UPDATE note SET title = 'from a' WHERE id = 'n1'; DELETE FROM note WHERE id = 'n2'");
    b.write("UPDATE note SET stars = 5 WHERE id = 'n1'; UPDATE item SET text = 'second'");
    settle(&space, &[&a, &b]);
    assert_eq!(b.table("SELECT id, title, stars FROM note"), [r#"Text("n1") Text("from a") Integer(5)"#]);
    assert_eq!(a.table("SELECT * FROM note"), b.table("SELECT * FROM note"));
    assert_eq!(a.table("SELECT text FROM item"), [r#"Text("second")"#]);
    assert_eq!((a.unsent(), b.unsent(), a.quarantine().len(), b.quarantine().len()), (0, 0, 0, 0));
    // What landed is no edit: an idle file is not written to.
    let before = std::fs::metadata(&a.path).unwrap().modified().unwrap();
    assert_eq!(a.sync(&space), whimbrel::replicate::Replicated::default());
    assert_eq!(std::fs::metadata(&a.path).unwrap().modified().unwrap(), before);
}

#[test]
fn two_new_rows_with_one_key_stay_two() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO item VALUES (7, NULL, 'of a', 'ca')");
    b.write("INSERT INTO item VALUES (7, NULL, 'of b', 'cb')");
    settle(&space, &[&a, &b]);
    let both = [r#"Integer(7) Text("of a")"#, r#"Integer(8) Text("of b")"#];
    assert_eq!(a.table("SELECT id, text FROM item ORDER BY id"), both);
    assert_eq!(b.table("SELECT id, text FROM item ORDER BY id"), both);
    assert_eq!(b.conflicts(), [("key_taken".to_owned(), false)]);
}

#[test]
fn a_row_that_refers_to_one_which_gets_another_key_follows_it_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let chain = vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE box(id INTEGER PRIMARY KEY, name TEXT, slot INTEGER UNIQUE);
             CREATE TABLE thing(id TEXT PRIMARY KEY NOT NULL, box INTEGER REFERENCES box(id), name TEXT)",
        )
        .toml("[sync.box]\nconflict = \"merge\"\nkeys = \"renumber\"\n[sync.thing]\nconflict = \"merge\"\nkeys = \"global\"\n"),
    ];
    let space = Space::new(folder.path(), chain);
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    // What refers to a row goes up with it: the server takes it although the row gets another key.
    a.write("INSERT INTO box VALUES (7, 'box of a', 1); INSERT INTO thing VALUES ('ta', 7, 'of a')");
    b.write("INSERT INTO box VALUES (7, 'box of b', 1); INSERT INTO thing VALUES ('tb', 7, 'of b')");
    a.sync(&space);
    b.sync(&space);
    // The box of a cannot land at b yet, which has its slot; until then nothing of a refers to the box of b.
    assert_eq!(b.table("SELECT t.id, x.name FROM thing t JOIN box x ON x.id = t.box"), [r#"Text("tb") Text("box of b")"#]);
    assert_eq!(b.table("PRAGMA foreign_key_check"), [] as [&str; 0]);
    b.write("UPDATE box SET slot = 2 WHERE name = 'box of b'");
    settle(&space, &[&a, &b]);
    let each = [r#"Text("ta") Text("box of a")"#, r#"Text("tb") Text("box of b")"#];
    for one in [&a, &b] {
        assert_eq!(one.table("SELECT t.id, x.name FROM thing t JOIN box x ON x.id = t.box ORDER BY t.id"), each);
    }
    assert_eq!((a.unsent(), b.unsent(), a.quarantine().len(), b.quarantine().len()), (0, 0, 0, 0));
}

#[test]
fn a_value_that_is_unique_has_one_owner_and_the_other_row_waits_visibly() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO item VALUES (1, NULL, 'of a', 'same')");
    b.write("INSERT INTO item VALUES (2, NULL, 'of b', 'same')");
    settle(&space, &[&a, &b]);
    assert_eq!(a.table("SELECT text FROM item"), [r#"Text("of a")"#]);
    assert_eq!(b.table("SELECT text FROM item"), [r#"Text("of b")"#]);
    assert_eq!(b.conflicts(), [("unique_taken".to_owned(), true)]);
    assert_eq!((b.unsent(), b.quarantine().len()), (1, 1), "{:?}", b.quarantine());
    // Who edits it has decided.
    b.write("UPDATE item SET code = 'other' WHERE id = 2");
    settle(&space, &[&b, &a]);
    let both = [r#"Integer(1) Text("same")"#, r#"Integer(2) Text("other")"#];
    assert_eq!(a.table("SELECT id, code FROM item ORDER BY id"), both);
    assert_eq!(b.table("SELECT id, code FROM item ORDER BY id"), both);
    assert_eq!((b.unsent(), b.quarantine().len(), b.conflicts()), (0, 0, vec![("unique_taken".to_owned(), false)]));
}

#[test]
fn a_child_waits_for_its_parent_and_a_deleted_parent_for_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write(
        "BEGIN; PRAGMA defer_foreign_keys = ON;
         INSERT INTO item VALUES (3, 'late', 'its parent comes later', NULL); INSERT INTO note(id) VALUES ('late'); COMMIT",
    );
    settle(&space, &[&a, &b]);
    let rows = "SELECT id, note, code FROM item ORDER BY id";
    assert_eq!(a.table(rows), b.table(rows));
    assert_eq!((b.quarantine().len(), a.unsent(), b.unsent()), (0, 0, 0));
    // The parent goes while a child that refers to it was made elsewhere.
    a.write("DELETE FROM item WHERE id = 3; DELETE FROM note WHERE id = 'late'");
    b.write("INSERT INTO item VALUES (9, 'late', 'a child', NULL)");
    settle(&space, &[&a, &b]);
    assert!(a.quarantine().values().any(|why| why.starts_with("parent_missing")), "{:?}", a.quarantine());
    assert!(b.quarantine().values().any(|why| why.starts_with("has_children")), "{:?}", b.quarantine());
    // Either of the two may be undone.
    b.write("DELETE FROM item WHERE id = 9");
    settle(&space, &[&a, &b]);
    assert_eq!(a.table("SELECT id FROM note"), b.table("SELECT id FROM note"));
    assert_eq!((a.quarantine().len(), b.quarantine().len()), (0, 0), "{:?} {:?}", a.quarantine(), b.quarantine());
}

#[test]
fn a_clock_ten_years_ahead_or_behind_decides_nothing() {
    for skew in [3_650 * 24 * 3_600_000_i64, -3_650 * 24 * 3_600_000] {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(folder.path(), notes());
        let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
        a.write("INSERT INTO item VALUES (1, NULL, 'first', NULL)");
        settle(&space, &[&a, &b]);
        // Both edit; the one that edits later has the clock that is off. Its journal says what its wall does.
        a.skew_ms.store(skew, std::sync::atomic::Ordering::Relaxed);
        b.write("UPDATE item SET text = 'earlier'");
        a.write("UPDATE item SET text = 'later'");
        a.write(&format!("UPDATE _whimbrel_journal SET wall_ms = wall_ms + {skew} + 500 WHERE seq = (SELECT max(seq) FROM _whimbrel_journal)"));
        settle(&space, &[&a, &b]);
        settle(&space, &[&b, &a]);
        assert_eq!(a.table("SELECT text FROM item"), [r#"Text("later")"#], "{skew}");
        assert_eq!(b.table("SELECT text FROM item"), [r#"Text("later")"#], "{skew}");
    }
}

#[test]
fn a_file_that_went_back_to_last_week_is_told_everything_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO note(id, title) VALUES ('old', 'before')");
    settle(&space, &[&a, &b]);
    a.write("PRAGMA wal_checkpoint(TRUNCATE)");
    let week = std::fs::read(&a.path).unwrap();
    a.write("INSERT INTO note(id, title) VALUES ('sent', 'after the copy'); UPDATE note SET title = 'changed' WHERE id = 'old'");
    settle(&space, &[&a, &b]);
    b.write("INSERT INTO note(id, title) VALUES ('of b', 'x'); DELETE FROM note WHERE id = 'sent'");
    settle(&space, &[&b]);
    // Restored by somebody who knows nothing of us, and edited before anybody looks.
    a.write("PRAGMA wal_checkpoint(TRUNCATE)");
    let a = a.replaced(&week);
    a.write("INSERT INTO note(id, title) VALUES ('after', 'made after the restore')");
    settle(&space, &[&a, &b]);
    let rows = "SELECT id, title FROM note ORDER BY id";
    assert_eq!(a.table(rows), b.table(rows));
    assert_eq!(a.table("SELECT id FROM note ORDER BY id"), [r#"Text("after")"#, r#"Text("of b")"#, r#"Text("old")"#]);
    assert_eq!(a.table("SELECT title FROM note WHERE id = 'old'"), [r#"Text("changed")"#]);
    assert_eq!((a.unsent(), b.unsent()), (0, 0));
}

#[test]
fn rows_that_swap_a_unique_value_arrive_swapped() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO item VALUES (1, NULL, 'x', 'p'), (2, NULL, 'y', 'q'), (3, NULL, 'z', 'r')");
    settle(&space, &[&a, &b]);
    a.write(
        "BEGIN; UPDATE item SET code = NULL; UPDATE item SET code = 'q' WHERE id = 1; UPDATE item SET code = 'r' WHERE id = 2;
         UPDATE item SET code = 'p' WHERE id = 3; COMMIT",
    );
    settle(&space, &[&a, &b]);
    let rows = "SELECT id, code FROM item ORDER BY id";
    assert_eq!(b.table(rows), [r#"Integer(1) Text("q")"#, r#"Integer(2) Text("r")"#, r#"Integer(3) Text("p")"#]);
    assert_eq!(a.table(rows), b.table(rows));
    assert_eq!((a.conflicts().len(), b.quarantine().len(), a.unsent(), b.unsent()), (0, 0, 0, 0));
}

#[test]
fn a_value_that_a_migration_computes_from_an_unsent_edit_goes_up_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let sync = "[sync.page]\nconflict = \"merge\"\nkeys = \"global\"\n";
    let chain = vec![
        Mig::up("0001_init", "CREATE TABLE page(id TEXT PRIMARY KEY NOT NULL, title TEXT, body TEXT)").toml(sync),
        Mig::up("0002_slugs", "ALTER TABLE page ADD COLUMN slug TEXT").toml(
            "[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"page\"\nset = \"slug = lower(replace(title, ' ', '-'))\"\nwhere = \"slug IS NULL AND title IS NOT NULL\"\n",
        ),
    ];
    let space = Space::new(folder.path(), chain);
    let (mut a, mut b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO page VALUES ('p', 'First Title', 'x'), ('q', 'Other', 'y')");
    settle(&space, &[&a, &b]);
    // Unsent in the old version; the other one goes ahead.
    a.write("UPDATE page SET title = 'Second Title' WHERE id = 'p'; UPDATE page SET body = 'z' WHERE id = 'q'");
    b.migrate(&space, 2);
    b.sync(&space);
    a.migrate(&space, 2);
    settle(&space, &[&a, &b]);
    let rows = "SELECT id, title, slug FROM page ORDER BY id";
    let expected = [r#"Text("p") Text("Second Title") Text("second-title")"#, r#"Text("q") Text("Other") Text("other")"#];
    assert_eq!((a.table(rows), b.table(rows)), (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec()));
    assert_eq!((a.unsent(), b.unsent()), (0, 0));
}

#[test]
fn a_file_that_is_copied_to_a_second_device_sends_nothing_twice_and_loses_nothing() {
    for copy_first in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(folder.path(), notes());
        let a = Replica::new(&space, "a", 1);
        a.write("INSERT INTO item VALUES (1, NULL, 'known', 'k')");
        settle(&space, &[&a]);
        // Unsent when it is copied: both have these.
        a.write("INSERT INTO item VALUES (7, NULL, 'new in both', 'n'); UPDATE item SET text = 'edited in both' WHERE id = 1");
        a.write("INSERT INTO note(id, title) VALUES ('n1', 'a natural key')");
        let b = a.copied(&space, "b");
        b.write("INSERT INTO item VALUES (9, NULL, 'only in the copy', 'c')");
        settle(&space, &if copy_first { [&b, &a] } else { [&a, &b] });
        settle(&space, &[&a, &b]);
        let rows = "SELECT id, text, code FROM item ORDER BY id";
        let expected = [
            r#"Integer(1) Text("edited in both") Text("k")"#,
            r#"Integer(7) Text("new in both") Text("n")"#,
            r#"Integer(9) Text("only in the copy") Text("c")"#,
        ];
        assert_eq!((a.table(rows), b.table(rows)), (expected.map(str::to_owned).to_vec(), expected.map(str::to_owned).to_vec()), "{copy_first}");
        assert_eq!((a.unsent(), b.unsent(), a.quarantine().len(), b.quarantine().len()), (0, 0, 0, 0));
        assert!(a.conflicts().is_empty() && b.conflicts().is_empty(), "{:?} {:?}", a.conflicts(), b.conflicts());
    }
}

#[test]
fn a_key_that_is_spelled_otherwise_is_the_same_key_on_both_sides() {
    let folder = tempfile::tempdir().unwrap();
    let sync = "[sync.word]\nconflict = \"merge\"\nkeys = \"global\"\n";
    let chain = vec![Mig::up("0001_init", "CREATE TABLE word(name TEXT COLLATE NOCASE PRIMARY KEY NOT NULL, sense TEXT)").toml(sync)];
    let space = Space::new(folder.path(), chain);
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO word VALUES ('Lee', 'a shelter')");
    settle(&space, &[&a, &b]);
    b.write("UPDATE word SET name = 'LEE'");
    settle(&space, &[&a, &b]);
    assert_eq!((a.unsent(), b.unsent()), (0, 0), "how a key is spelled is nothing to send");
    b.write("UPDATE word SET sense = 'the side away from the wind'");
    settle(&space, &[&a, &b]);
    assert_eq!(a.table("SELECT sense FROM word"), [r#"Text("the side away from the wind")"#]);
    for one in [&a, &b] {
        let verified = one.verify(&space).expect("everything landed");
        assert!(verified.tables.iter().all(|table| table.keys && table.differs.is_empty()), "{verified:?}");
    }
}

#[test]
fn what_an_older_version_was_not_told_of_a_table_comes_once_the_file_is_at_its_min_schema() {
    let folder = tempfile::tempdir().unwrap();
    let more = Mig::up("0002_more", "ALTER TABLE item ADD COLUMN more TEXT").toml("[sync.item]\nmin_schema = \"this\"\n");
    let space = Space::new(folder.path(), notes().into_iter().chain([more]).collect());
    let (a, mut b) = (Replica::new(&space, "a", 2), Replica::new(&space, "b", 1));
    a.write("INSERT INTO note VALUES ('n1', 'one', NULL, 1); INSERT INTO item VALUES (1, 'n1', 'first', 'c1', 'more')");
    b.write("INSERT INTO item VALUES (5, NULL, 'held', 'c5')");
    settle(&space, &[&a, &b]);
    assert_eq!((b.table("SELECT id FROM note"), b.table("SELECT id FROM item")), (vec![r#"Text("n1")"#.to_owned()], vec!["Integer(5)".to_owned()]));
    b.migrate(&space, 2);
    settle(&space, &[&a, &b]);
    let items = "SELECT * FROM item ORDER BY id";
    assert_eq!(a.table(items), b.table(items));
    assert_eq!((a.table(items).len(), b.unsent(), b.quarantine().len()), (2, 0, 0));
}
