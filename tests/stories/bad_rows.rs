//! Rows that one side cannot take, pushes that come three times, pages that are cut: visible, harmless, and over when the cause is.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use serde_json::Value as Json;
use whimbrel::{replicate::ReplicateError, store::exchange, sync::decide::Choice, transport::TransportError};
use whimbrel_shared::{
    change::{Change, Edit, MAX_ROW_BYTES},
    packed,
    protocol::push::PushHead,
    value::Value,
};
use whimbrel_tests::{
    Mig,
    replica::{Replica, Space, settle},
    sample,
};

/// The tables are as they are at the server.
#[track_caller]
fn is_equal(space: &Space, replicas: &[&Replica]) {
    for replica in replicas {
        let verified = replica.verify(space).unwrap_or_else(|e| panic!("{}: {e:?}", replica.path.display()));
        assert!(verified.tables.iter().all(|t| t.is_equal()), "{}: {verified:?}", replica.path.display());
    }
}

#[test]
fn rows_that_the_server_does_not_take_hold_up_nothing_are_seen_and_go_up_when_their_cause_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let chain = vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, code TEXT UNIQUE, body BLOB);
             CREATE TABLE strict(id TEXT PRIMARY KEY NOT NULL, value TEXT)",
        )
        .toml("[sync.item]\nkeys = 'global'\n[sync.strict]\n"),
        Mig::up("0002_strict", "ALTER TABLE strict ADD COLUMN unit TEXT").toml("[sync.strict]\nmin_schema = 'this'\n"),
    ];
    let space = Space::new(folder.path(), chain);
    let (mut a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 2));
    b.write("INSERT INTO item(id, name, code) VALUES (100, 'of b', 'taken')");
    settle(&space, &[&b]);
    // Between good rows one whose code another has, one that is too large, and one that this version cannot say any more.
    a.write("INSERT INTO item(id, name) VALUES (1, 'good')");
    a.write("INSERT INTO item(id, name, code) VALUES (2, 'taken', 'taken')");
    a.write(&format!("INSERT INTO item(id, name, body) VALUES (3, 'large', zeroblob({}))", MAX_ROW_BYTES + 1));
    a.write("INSERT INTO strict(id, value) VALUES ('s', 'old')");
    a.write("WITH RECURSIVE n(i) AS (SELECT 4 UNION ALL SELECT i + 1 FROM n WHERE i < 20) INSERT INTO item(id, name) SELECT i, 'good' FROM n");
    settle(&space, &[&a, &b]);
    let good = "SELECT id FROM item WHERE name = 'good' ORDER BY id";
    assert_eq!(b.table(good), a.table(good), "the rows after the bad ones are there");
    assert_eq!(b.table("SELECT count(*) FROM item WHERE name IN ('taken', 'large')"), ["Integer(0)"]);
    assert_eq!(b.table("SELECT * FROM strict"), [""; 0]);
    let open = "SELECT kind, key FROM _whimbrel_conflicts WHERE open ORDER BY kind";
    let three = [r#"Text("held") Text("s")"#, r#"Text("impossible") Integer(3)"#, r#"Text("unique_taken") Integer(2)"#];
    assert_eq!(a.table(open), three, "each is seen, with its reason");
    assert_eq!((a.unsent(), a.table("SELECT count(*) FROM item")), (3, vec!["Integer(20)".to_owned()]), "none has vanished");
    assert_eq!(a.table("SELECT key, code FROM _whimbrel_waiting"), [r#"Integer(100) Text("unique")"#]);
    // They are not sent again and again, and what is written later is not held up either.
    assert_eq!(a.sync(&space).pushed, 0);
    a.write("INSERT INTO item(id, name) VALUES (21, 'good')");
    settle(&space, &[&a, &b]);
    assert_eq!(b.table(good), a.table(good));

    b.write("UPDATE item SET code = 'other' WHERE id = 100");
    settle(&space, &[&b, &a]);
    assert_eq!(a.table("SELECT name, code FROM item WHERE id = 100"), [r#"Text("of b") Text("other")"#], "what waited for the code landed");
    let id = a.app.query_row("SELECT id FROM _whimbrel_conflict WHERE kind = 'unique_taken'", [], |row| row.get(0)).unwrap();
    a.decide(&space, |at| at.resolve(id, Choice::Retry)).unwrap();
    a.write("UPDATE item SET body = zeroblob(1000) WHERE id = 3");
    a.migrate(&space, 2);
    settle(&space, &[&a, &b]);
    for sql in ["SELECT id, name, code, length(body) FROM item ORDER BY id", "SELECT * FROM strict"] {
        assert_eq!(b.table(sql), a.table(sql));
    }
    assert_eq!(
        b.table("SELECT id, name, code FROM item WHERE id IN (2, 3)"),
        [r#"Integer(2) Text("taken") Text("taken")"#, r#"Integer(3) Text("large") Null"#]
    );
    assert_eq!(b.table("SELECT id, value FROM strict"), [r#"Text("s") Text("old")"#]);
    assert_eq!((a.table(open).len(), a.unsent(), a.quarantine().len()), (0, 0, 0), "{:?}", a.table(open));
    is_equal(&space, &[&a, &b]);
}

#[test]
fn a_row_that_only_one_file_refuses_holds_up_nothing_there_and_lands_when_its_cause_is_gone() {
    let checked = |name: &str, check: &str| {
        let table = format!("CREATE TABLE person(id TEXT PRIMARY KEY NOT NULL, name TEXT, age INTEGER CHECK ({check}));");
        Mig::up(name, "").file("person.sql", table).toml("[[step]]\nrebuild = 'person'\nas = 'person.sql'\n")
    };
    let folder = tempfile::tempdir().unwrap();
    let chain = vec![
        Mig::up("0001_init", "CREATE TABLE person(id TEXT PRIMARY KEY NOT NULL, name TEXT, age INTEGER)").toml("[sync.person]\n"),
        checked("0002_checked", "age >= 0"),
        checked("0003_wider", "age >= -100"),
    ];
    let space = Space::new(folder.path(), chain);
    let (a, mut b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 2));
    a.write("INSERT INTO person VALUES ('old', 'x', 1)");
    settle(&space, &[&a, &b]);
    // One that is new and one that is edited, each between good ones.
    a.write("INSERT INTO person VALUES ('1', 'good', 1), ('2', 'bad', -1), ('3', 'good', 3); UPDATE person SET name = 'edited', age = -2 WHERE id = 'old'");
    a.write("INSERT INTO person VALUES ('4', 'good', 4)");
    settle(&space, &[&a, &b]);
    let good = "SELECT id, age FROM person WHERE name = 'good' ORDER BY id";
    assert_eq!((b.table(good).len(), b.table(good)), (3, a.table(good)));
    assert_eq!(b.table("SELECT name, age FROM person WHERE id = 'old'"), [r#"Text("x") Integer(1)"#], "it is not half landed");
    let waiting = "SELECT key, code FROM _whimbrel_waiting ORDER BY key";
    assert_eq!(b.table(waiting), [r#"Text("2") Text("refused")"#, r#"Text("old") Text("refused")"#]);
    assert_eq!(b.table("SELECT quarantined FROM _whimbrel_sync"), ["Integer(2)"]);
    assert!(b.quarantine().values().all(|why| why.contains("CHECK")), "{:?}", b.quarantine());
    a.write("INSERT INTO person VALUES ('5', 'good', 5)");
    settle(&space, &[&a, &b]);
    assert_eq!((b.table(good).len(), b.table(good)), (4, a.table(good)), "nor is what comes later held up");

    a.write("UPDATE person SET age = 2 WHERE id = '2'");
    settle(&space, &[&a, &b]);
    assert_eq!(b.table("SELECT name, age FROM person WHERE id = '2'"), [r#"Text("bad") Integer(2)"#], "mended where it was written");
    assert_eq!(b.table(waiting), [r#"Text("old") Text("refused")"#]);
    b.migrate(&space, 3);
    settle(&space, &[&a, &b]);
    let all = "SELECT id, name, age FROM person ORDER BY id";
    assert_eq!(b.table(all), a.table(all), "a migration took its cause away");
    assert_eq!((b.quarantine().len(), b.unsent(), a.unsent()), (0, 0, 0), "{:?}", b.quarantine());
    is_equal(&space, &[&a, &b]);
}

fn notes() -> Vec<Mig> {
    vec![
        Mig::up("0001_init", "CREATE TABLE note(id TEXT PRIMARY KEY NOT NULL, title TEXT, body BLOB, stars REAL)")
            .toml("[sync.note]\nconflict = 'merge'\n"),
    ]
}

#[test]
fn a_push_that_comes_three_times_is_answered_three_times_and_taken_once() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO note VALUES ('old', 'x', NULL, 1), ('gone', 'x', NULL, 1), ('met', 'x', NULL, 1)");
    settle(&space, &[&a, &b]);
    // An insert, an edit, a deletion, and an edit that loses against another's.
    b.write("BEGIN; UPDATE note SET title = 'of b' WHERE id = 'met'; UPDATE _whimbrel_journal SET wall_ms = wall_ms + 2000 WHERE seq > (SELECT seq FROM _whimbrel_folded); COMMIT");
    a.write("UPDATE note SET title = 'of a' WHERE id = 'met'; INSERT INTO note VALUES ('new', 'x', x'00', 2); UPDATE note SET stars = 3 WHERE id = 'old'; DELETE FROM note WHERE id = 'gone'");
    b.sync(&space);
    let sent: Arc<Mutex<Vec<(Bytes, Bytes)>>> = Arc::default();
    let kept = Arc::clone(&sent);
    a.meddle(move |asked, answer| {
        if asked.url.contains("/api/sync/push") {
            kept.lock().unwrap().push((asked.body.clone(), answer.body.clone()));
        }
        Ok(answer)
    });
    settle(&space, &[&a, &b]);
    let sent = sent.lock().unwrap().clone();
    let [(push, answer)] = sent.as_slice() else { panic!("{} pushes", sent.len()) };
    assert!(String::from_utf8_lossy(answer).contains("merged"), "{answer:?}");

    let c = Replica::new(&space, "c", 1);
    let rows = "SELECT id, title, body, stars FROM note ORDER BY id";
    let versions = |replica: &Replica| -> Vec<String> { replica.table("SELECT k1, version FROM _whimbrel_row ORDER BY k1") };
    let stands = |replica: &Replica| exchange::read(&replica.app).unwrap().cursor;
    settle(&space, &[&c]);
    let before = (c.table(rows), versions(&c), stands(&c), kept_conflicts(&space));
    assert_eq!(before.0, a.table(rows));
    for time in 1..=3 {
        let again = space.push_as(&a.token, push);
        let (said, says) = (String::from_utf8_lossy(answer), String::from_utf8_lossy(&again.body));
        assert_eq!((again.status(), says), (200, said), "time {time}: the same answer");
        // Who comes new and who was there find what was there.
        let d = Replica::new(&space, &format!("d{time}"), 1);
        settle(&space, &[&c, &d]);
        assert_eq!((c.table(rows), versions(&c), stands(&c), kept_conflicts(&space)), before, "time {time}");
        assert_eq!((d.table(rows), versions(&d), stands(&d)), (before.0.clone(), before.1.clone(), before.2), "time {time}");
    }
    // The same id with one other value is another push, and is refused whole.
    let (head, mut changes) = packed::unpack_changes::<PushHead>(push).unwrap();
    let cell = changes.iter_mut().find_map(|c| match &mut c.edit {
        Edit::Present { cells, .. } => cells.first_mut(),
        Edit::Deleted { .. } => None,
    });
    cell.expect("an edit").value = Value::Text(b"forged".to_vec());
    let refused = space.push_as(&a.token, &packed::pack_changes(&head, &changes));
    assert_eq!(refused.status(), 409, "{}", String::from_utf8_lossy(&refused.body));
    assert!(refused.json()["type"].as_str().is_some_and(|t| t.contains("push-differs")), "{}", refused.json());
    let shorter: Vec<Change> = changes.drain(1..).collect();
    assert_eq!(space.push_as(&a.token, &packed::pack_changes(&head, &shorter)).status(), 409);
    // And nobody else's token makes it his.
    assert!((400..500).contains(&space.push_as(&b.token, push).status()));
    settle(&space, &[&a, &b, &c]);
    assert_eq!((c.table(rows), versions(&c), stands(&c), kept_conflicts(&space)), before);
    is_equal(&space, &[&a, &b, &c]);
}

fn kept_conflicts(space: &Space) -> Json {
    space.operate("GET", "/api/conflicts?app=bench&limit=500", &Json::Null).json()["conflicts"].clone()
}

#[test]
fn a_page_that_is_cut_at_any_byte_lands_nothing_and_the_next_whole_one_everything() {
    let folder = tempfile::tempdir().unwrap();
    let space = Space::new(folder.path(), notes());
    let (a, b) = (Replica::new(&space, "a", 1), Replica::new(&space, "b", 1));
    a.write("INSERT INTO note VALUES ('first', 'x', NULL, 1)");
    settle(&space, &[&a, &b]);
    // Of every kind of value, and so many different that packing leaves a few thousand bytes.
    a.write(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 120)
         INSERT INTO note SELECT 'id ' || i, hex(randomblob(i % 7)), CASE WHEN i % 3 THEN randomblob(20) END, i / 7.0 FROM n;
         UPDATE note SET title = 'second' WHERE id = 'first'",
    );
    a.sync(&space);
    let whole: Arc<Mutex<Option<Bytes>>> = Arc::default();
    let keep = Arc::clone(&whole);
    b.meddle(move |asked, answer| {
        if asked.url.contains("/api/sync/pull") {
            *keep.lock().unwrap() = Some(answer.body.clone());
        }
        Err(TransportError::Unreachable { url: asked.url.clone(), why: "only looking".to_owned() })
    });
    assert!(b.try_sync(&space).is_err());
    let page = whole.lock().unwrap().clone().expect("a page");
    assert!(page.len() > 2_000, "{} bytes", page.len());
    let state = || (b.table("SELECT * FROM note"), exchange::read(&b.app).unwrap(), b.quarantine().len(), b.unsent());
    let before = state();
    assert_eq!(before.0.len(), 1);
    for length in (0..page.len()).step_by(page.len().div_ceil(sample(200, page.len()))) {
        b.meddle(move |asked, mut answer| {
            if asked.url.contains("/api/sync/pull") {
                answer.body = answer.body.slice(..length.min(answer.body.len()));
            }
            Ok(answer)
        });
        let ended = b.try_sync(&space);
        assert!(
            matches!(ended, Err(ReplicateError::Server(TransportError::NotUnderstood { .. }))),
            "cut after {length} of {} bytes: {ended:?}",
            page.len()
        );
        assert_eq!(state(), before, "cut after {length} of {} bytes", page.len());
    }
    b.leave_alone();
    assert_eq!(b.sync(&space).landed, 121);
    let rows = "SELECT id, title, body, stars FROM note ORDER BY id";
    assert_eq!(b.table(rows), a.table(rows));
    is_equal(&space, &[&a, &b]);
}
