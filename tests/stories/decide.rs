//! What a person decides of rows, between real files and a real server: nothing is lost on the way, and all come to the same.

use whimbrel::{
    store::key::{Key, KeyValue},
    sync::decide::{Choice, Undecidable},
};
use whimbrel_tests::{
    Mig,
    replica::{Replica, Space, settle},
};

fn chain() -> Vec<Mig> {
    vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE item(id INTEGER PRIMARY KEY, text TEXT, code TEXT UNIQUE, stars INTEGER DEFAULT 0 CHECK (stars < 10));
             CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL, color TEXT, size INTEGER)",
        )
        .toml("[sync.item]\nconflict = \"keep-newest\"\nkeys = \"global\"\n[sync.tag]\nconflict = \"merge\"\n"),
    ]
}

struct Two {
    _folder: tempfile::TempDir,
    space: Space,
    a: Replica,
    b: Replica,
}

impl Two {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let space = Space::new(folder.path(), chain());
        let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
        Self { _folder: folder, space, a, b }
    }

    fn settle(&self) {
        settle(&self.space, &[&self.a, &self.b]);
    }

    /// The newest conflict of b, as whoever sits there decides it.
    fn b_decides(&self, choice: Choice) -> Result<String, Undecidable> {
        let id = self.b.app.query_row("SELECT max(id) FROM _whimbrel_conflict", [], |row| row.get(0)).expect("there is a conflict");
        self.b.decide(&self.space, |at| at.resolve(id, choice))
    }

    /// Both have the same, nothing waits, and the server says so too.
    #[track_caller]
    fn are_one(&self, sql: &str, rows: &[&str]) {
        self.settle();
        assert_eq!(self.a.table(sql), rows);
        assert_eq!(self.b.table(sql), rows);
        for replica in [&self.a, &self.b] {
            assert_eq!((replica.unsent(), replica.quarantine().len()), (0, 0), "{:?}", replica.quarantine());
            let verified = replica.verify(&self.space).unwrap();
            assert!(verified.tables.iter().all(|t| t.is_equal()) && verified.tables.len() == 2, "{verified:?}");
        }
    }

    fn archive(&self) -> Vec<String> {
        self.b.table("SELECT name, key, column_name, value FROM _whimbrel_archive ORDER BY id")
    }
}

/// b edits, then a does what `sql` says, and is heard first.
fn b_loses(two: &Two, b: &str, a: &str) {
    two.a.write("INSERT INTO item(id, text, code, stars) VALUES (1, 'first', 'c', 3)");
    two.settle();
    two.b.write(b);
    two.a.write(a);
    two.a.write("UPDATE _whimbrel_journal SET wall_ms = wall_ms + 2000 WHERE seq > (SELECT seq FROM _whimbrel_folded)");
    two.a.sync(&two.space);
    two.b.sync(&two.space);
}

const ITEMS: &str = "SELECT id, text, stars FROM item ORDER BY id";

#[test]
fn values_that_lost_are_written_again_as_an_edit_like_any_other() {
    let two = Two::new();
    b_loses(&two, "UPDATE item SET text = 'of b'", "UPDATE item SET text = 'of a'");
    assert_eq!(two.b.conflicts(), [("edits".to_owned(), false)]);
    assert_eq!(two.b.table(ITEMS), [r#"Integer(1) Text("of a") Integer(3)"#]);
    assert_eq!(two.b_decides(Choice::Retry), Err(Undecidable::NotFor { choice: Choice::Retry, kind: whimbrel::store::conflict::Kind::Edits }));
    assert_eq!(two.b_decides(Choice::Mine).unwrap(), "written into the row again: text");
    assert_eq!(two.b.unsent(), 1);
    two.are_one(ITEMS, &[r#"Integer(1) Text("of b") Integer(3)"#]);
    assert!(matches!(two.b_decides(Choice::Theirs), Err(Undecidable::Over { .. })));
}

#[test]
fn what_was_written_since_is_not_lost_under_values_that_are_written_again() {
    let two = Two::new();
    b_loses(&two, "UPDATE item SET text = 'of b'", "UPDATE item SET text = 'of a'");
    two.b.write("UPDATE item SET text = 'since'");
    two.b_decides(Choice::Mine).unwrap();
    two.are_one(ITEMS, &[r#"Integer(1) Text("of b") Integer(3)"#]);
    assert_eq!(two.archive(), [r#"Text("item") Text("[1]") Text("text") Text("since")"#]);
}

#[test]
fn what_the_server_has_stays_and_what_lost_is_in_the_archive() {
    let two = Two::new();
    b_loses(&two, "UPDATE item SET text = 'of b'", "UPDATE item SET text = 'of a'");
    two.b_decides(Choice::Theirs).unwrap();
    two.are_one(ITEMS, &[r#"Integer(1) Text("of a") Integer(3)"#]);
    assert_eq!(two.archive(), [r#"Text("item") Text("[1]") Text("text") Text("of b")"#]);
}

#[test]
fn a_row_that_was_deleted_under_an_edit_is_made_again_whole() {
    let two = Two::new();
    b_loses(&two, "UPDATE item SET text = 'of b'", "DELETE FROM item");
    assert_eq!((two.b.conflicts(), two.b.table(ITEMS).len()), (vec![("edit_of_deleted".to_owned(), false)], 0));
    two.b_decides(Choice::Mine).unwrap();
    // Also what was not edited: the code and the stars.
    two.are_one("SELECT id, text, code, stars FROM item", &[r#"Integer(1) Text("of b") Text("c") Integer(3)"#]);
}

#[test]
fn a_row_that_came_back_is_deleted_again() {
    let two = Two::new();
    b_loses(&two, "DELETE FROM item", "UPDATE item SET text = 'of a'");
    assert_eq!((two.b.conflicts(), two.b.table(ITEMS).len()), (vec![("deletion_of_edited".to_owned(), false)], 1));
    two.b_decides(Choice::Mine).unwrap();
    assert_eq!(two.archive().len(), 4, "the row and three values");
    two.are_one(ITEMS, &[]);
}

fn same_tag() -> Two {
    let two = Two::new();
    two.a.write("INSERT INTO tag VALUES ('x', 'red', 1)");
    two.b.write("INSERT INTO tag VALUES ('x', 'blue', 1)");
    two.settle();
    assert_eq!(two.b.conflicts(), [("key_taken".to_owned(), true)]);
    assert_eq!(two.b.table("SELECT color FROM tag"), [r#"Text("blue")"#], "nothing is merged that was two things");
    two
}

const TAGS: &str = "SELECT name, color, size FROM tag";

#[test]
fn a_row_whose_key_is_taken_becomes_an_edit_of_the_other() {
    let two = same_tag();
    assert_eq!(two.b_decides(Choice::Renumber), Err(Undecidable::NoNumber("tag".to_owned())));
    assert_eq!(two.b.conflicts(), [("key_taken".to_owned(), true)], "what cannot be decided so leaves everything as it was");
    assert!(two.b_decides(Choice::Mine).unwrap().ends_with("its own stay: color"));
    two.are_one(TAGS, &[r#"Text("x") Text("blue") Integer(1)"#]);
    assert_eq!(two.archive(), [r#"Text("tag") Text("[\"x\"]") Text("color") Text("red")"#]);
}

#[test]
fn a_row_whose_key_is_taken_gives_way_and_is_in_the_archive() {
    let two = same_tag();
    two.b_decides(Choice::Theirs).unwrap();
    two.are_one(TAGS, &[r#"Text("x") Text("red") Integer(1)"#]);
    assert_eq!(two.archive().len(), 3);
    assert!(two.archive()[1].ends_with(r#"Text("color") Text("blue")"#), "{:?}", two.archive());
}

#[test]
fn a_value_that_another_row_has_is_sent_again_when_a_person_says_so() {
    let two = Two::new();
    two.a.write("INSERT INTO item(id, text, code) VALUES (1, 'of a', 'same')");
    two.b.write("INSERT INTO item(id, text, code) VALUES (2, 'of b', 'same')");
    two.settle();
    assert_eq!(two.b.conflicts(), [("unique_taken".to_owned(), true)]);
    two.a.write("UPDATE item SET code = 'other'");
    two.settle();
    assert_eq!(two.b.unsent(), 1, "nobody knows that it would be taken now");
    two.b_decides(Choice::Retry).unwrap();
    two.are_one("SELECT id, code FROM item ORDER BY id", &[r#"Integer(1) Text("other")"#, r#"Integer(2) Text("same")"#]);
}

#[test]
fn a_new_row_that_is_given_up_makes_room_for_the_other() {
    let two = Two::new();
    two.a.write("INSERT INTO item(id, text, code) VALUES (1, 'of a', 'same')");
    two.b.write("INSERT INTO item(id, text, code) VALUES (2, 'of b', 'same')");
    two.settle();
    assert_eq!(two.b.quarantine().len(), 1);
    two.b_decides(Choice::Theirs).unwrap();
    two.are_one("SELECT id, text FROM item", &[r#"Integer(1) Text("of a")"#]);
    assert_eq!(two.archive().len(), 4, "the row and its three values: {:?}", two.archive());
}

#[test]
fn an_edit_that_is_given_up_is_in_the_archive_and_the_row_is_told_anew() {
    let two = Two::new();
    two.a.write("INSERT INTO item(id, text, code) VALUES (1, 'of a', 'same'), (2, 'second', 'own')");
    two.settle();
    two.a.write("UPDATE item SET code = 'wanted' WHERE id = 1");
    two.b.write("UPDATE item SET code = 'wanted', text = 'of b' WHERE id = 2");
    two.settle();
    assert_eq!(two.b.conflicts(), [("unique_taken".to_owned(), true)]);
    two.b_decides(Choice::Theirs).unwrap();
    two.are_one("SELECT id, text, code FROM item", &[r#"Integer(1) Text("of a") Text("wanted")"#, r#"Integer(2) Text("second") Text("own")"#]);
    assert_eq!(two.archive(), [r#"Text("item") Text("[2]") Text("text") Text("of b")"#, r#"Text("item") Text("[2]") Text("code") Text("wanted")"#]);
}

#[test]
fn a_row_that_is_dropped_from_quarantine_comes_again_when_it_changes_and_not_before() {
    let two = Two::new();
    // The application of b is stricter than the chain.
    two.b.write("CREATE UNIQUE INDEX own ON item(stars)");
    two.a.write("INSERT INTO item(id, code) VALUES (1, 'x'), (2, 'y')");
    two.settle();
    assert_eq!(two.b.quarantine().len(), 1, "{:?}", two.b.quarantine());
    let waits: i64 = two.b.app.query_row("SELECT k1 FROM _whimbrel_quarantine", [], |row| row.get(0)).unwrap();
    let table: u32 = two.b.app.query_row("SELECT tab FROM _whimbrel_quarantine", [], |row| row.get(0)).unwrap();
    let key = Key(vec![KeyValue::Integer(waits)]);
    assert_eq!(two.b.decide(&two.space, |at| at.retry_waiting()), (0, 1));
    let lost = two.b.decide(&two.space, |at| at.drop_waiting(table, &key)).unwrap();
    assert!(lost.starts_with("its 3 values are not in this file"), "{lost}");
    assert_eq!(two.b.decide(&two.space, |at| at.drop_waiting(table, &key)), Err(Undecidable::NotWaiting(waits.to_string())));
    two.settle();
    assert_eq!((two.b.quarantine().len(), two.b.unsent(), two.archive().len()), (0, 0, 3));
    assert_eq!(two.a.table(ITEMS).len(), 2, "nothing is deleted elsewhere");
    two.a.write(&format!("UPDATE item SET stars = 5 WHERE id = {waits}"));
    two.settle();
    assert_eq!(two.a.table(ITEMS), two.b.table(ITEMS));
    assert_eq!(two.b.table("SELECT stars FROM item ORDER BY stars"), ["Integer(0)", "Integer(5)"]);
}

#[test]
fn sums_name_the_table_and_the_column_that_differ() {
    let two = Two::new();
    two.a.write("INSERT INTO item(id, text, code) VALUES (1, 'one', NULL), (2, 'two', NULL); INSERT INTO tag VALUES ('x', 'red', 1)");
    two.settle();
    // Somebody writes past the triggers, as a tool that knows nothing of anybody would.
    two.b.app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    two.b.write("UPDATE item SET text = 'behind our back' WHERE id = 2");
    let verified = two.b.verify(&two.space).unwrap();
    let differ: Vec<_> = verified.tables.iter().filter(|t| !t.is_equal()).map(|t| (t.name.as_str(), t.keys, t.differs.clone())).collect();
    assert_eq!(differ, [("item", true, vec!["text".to_owned()])]);
    two.b.write("DELETE FROM tag");
    let verified = two.b.verify(&two.space).unwrap();
    assert!(verified.tables.iter().any(|t| t.name == "tag" && !t.keys && t.rows == (0, 1)), "{verified:?}");
    two.b.app.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, true).unwrap();
    two.b.write("UPDATE item SET stars = 1");
    assert!(two.b.verify(&two.space).is_err(), "what is unsent cannot be compared");
}
