//! What a person sees and decides of rows, on the command line of a device: conflicts, quarantine, status, and leaving.

use serde_json::{Value, json};
use tempfile::TempDir;
use whimbrel_tests::{
    Device, Mig, Server,
    device::{list, one, only},
};

use crate::{SOON, stage};

fn chain() -> Vec<Mig> {
    vec![
        Mig::up("0001_init", "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, mail TEXT UNIQUE)")
            .toml("[sync.person]\nkeys = \"global\"\nconflict = \"keep-newest\"\n"),
    ]
}

/// Two devices at version 1, each in a folder of its own.
fn devices(stage: &TempDir) -> (Server, Device, Device) {
    let server = Server::start(stage.path());
    server.publish("notes", &chain());
    let device = |name: &str| {
        let device = Device::new(stage.path(), name, &server.url()).database("notes.db", "notes");
        device.make("notes.db", "");
        device.enroll(&server.token("notes"));
        device.once_well();
        device
    };
    let (a, b) = (device("a"), device("b"));
    (server, a, b)
}

fn write(device: &Device, sql: &str) {
    let file = rusqlite::Connection::open(device.path("notes.db")).unwrap();
    file.busy_timeout(SOON).unwrap();
    file.execute_batch(sql).unwrap();
}

#[test]
fn a_person_sees_a_conflict_with_both_sides_and_decides_it() {
    let stage = stage();
    let (_server, a, b) = devices(&stage);
    write(&a, "INSERT INTO person VALUES (1, 'Ann of a', 'ann@example.com')");
    a.once_well();
    write(&b, "INSERT INTO person VALUES (2, 'Ann of b', 'ann@example.com')");
    let mut daemon = b.start();
    daemon.until(SOON, "the conflict is in the status", |s| (only(s)["rows"]["conflicts_open"] == 1).then_some(()));
    b.run(&["status"]).says(0, &["rows: 1 not sent, 1 conflict open, 1 in quarantine"]);

    let listed = b.json(&["conflicts", "list"]);
    let conflict = &listed["conflicts"][0];
    assert_eq!((&listed["total"], &conflict["table"], &conflict["kind"]), (&json!(1), &json!("person"), &json!("unique_taken")), "{listed:#}");
    assert_eq!((&conflict["key"], &conflict["other_key"], &conflict["choices"]), (&json!([2]), &json!([1]), &json!(["theirs", "retry"])));
    let id = conflict["id"].to_string();
    b.run(&["conflicts", "show", &id]).says(0, &["unique_taken", "mail", "ann@example.com", "--theirs | --retry"]);
    b.run(&["conflicts", "show", "99"]).says(1, &["no conflict has the number 99"]);
    let waiting = b.json(&["quarantine", "list"]);
    assert_eq!((&waiting["rows"][0]["key"], &waiting["rows"][0]["code"]), (&json!([1]), &json!("unique")), "{waiting:#}");
    b.run(&["quarantine", "show", "person", "1"]).says(0, &["Ann of a", "unique"]);

    b.run(&["conflicts", "resolve", &id, "--mine"]).says(1, &["--mine decides nothing", "use --theirs or --retry"]);
    b.run(&["conflicts", "resolve", &id, "--theirs"]).says(0, &["given up", "_whimbrel_archive"]);
    assert_eq!(list(&b.path("notes.db"), "SELECT name FROM person"), ["Ann of a"]);
    assert_eq!(list(&b.path("notes.db"), "SELECT value FROM _whimbrel_archive WHERE column_name = 'name'"), ["Ann of b"]);
    b.run(&["conflicts", "list"]).says(0, &["no conflict waits"]);
    b.run(&["quarantine", "list"]).says(0, &["no row waits"]);
    b.run(&["sync", "--verify"]).says(0, &["person: equal, 1 row"]);
    // Asked twice, it is the same answer.
    b.run(&["conflicts", "resolve", &id, "--theirs"]).says(0, &["given up"]);
    daemon.stop();
}

#[test]
fn sync_says_what_moved_and_what_differs_and_that_the_server_does_not_answer() {
    let stage = stage();
    let (server, a, b) = devices(&stage);
    let (daemon, _other) = (b.start(), a.start());
    write(&a, "INSERT INTO person VALUES (1, 'Ann', NULL), (2, 'Ben', NULL)");
    // A second after the write it goes up by itself: on a slow machine there is nothing left to say.
    let outcome = a.run(&["sync"]);
    let said = outcome.said();
    outcome.says(0, &[]);
    assert!(said.contains("2 rows up") && said.contains("0 rows down") || said.contains("nothing to exchange"), "{said}");
    let moved = b.json(&["sync", "--verify"]);
    assert!([2, 0].map(serde_json::Value::from).contains(&moved["databases"][0]["exchanged"]["landed"]), "{moved:#}");
    assert_eq!(list(&b.path("notes.db"), "SELECT name FROM person ORDER BY id"), ["Ann", "Ben"]);
    let file = rusqlite::Connection::open(b.path("notes.db")).unwrap();
    file.set_db_config(rusqlite::config::DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false).unwrap();
    file.execute_batch("UPDATE person SET name = 'past the triggers' WHERE id = 2").unwrap();
    b.run(&["sync", "--verify"]).says(1, &["person: differs: in name"]);
    drop(server);
    b.run(&["sync"]).says(75, &["remedy"]);
    daemon.stop();
}

#[test]
fn a_file_is_left_as_if_nobody_had_been_there_with_what_was_not_sent_beside_it() {
    let stage = stage();
    let (server, _a, b) = devices(&stage);
    let mut daemon = b.start();
    drop(server);
    write(&b, "INSERT INTO person VALUES (7, 'not sent', NULL)");
    b.run(&["detach", "notes.db"]).says(0, &["1 row not sent", "remove it from the configuration"]);
    let file = b.path("notes.db");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%whimbrel%'"), 0);
    assert_eq!(list(&file, "SELECT name FROM person"), ["not sent"]);
    let left: Value = serde_json::from_str(&std::fs::read_to_string(b.path("notes.db-whimbrel-left.json")).unwrap()).unwrap();
    assert_eq!(
        (&left["schema"], &left["unsent"][0]["table"], &left["unsent"][0]["values"]["name"]),
        (&json!("whimbrel.left/1"), &json!("person"), &json!("not sent"))
    );
    // It is left alone from then on, and says so; a person takes it up again.
    daemon.until(SOON, "it is left alone", |s| (only(s)["health"][0]["code"] == "detached").then_some(()));
    b.run(&["run", "--once"]).says(75, &[]);
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM sqlite_schema WHERE name LIKE '%whimbrel%'"), 0);
    daemon.stop();
}
