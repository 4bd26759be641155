//! Rows that a migration goes on without: shown here, counted there, and tried again when they are mended.

use rusqlite::Connection;
use serde_json::{Value, json};
use whimbrel_tests::{
    Device, Mig, Server,
    device::{client_id, list, one, only},
    until,
};

use crate::{SOON, pair, stage};

const TABLES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT, slug TEXT, words INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE cards(id INTEGER PRIMARY KEY, note INTEGER NOT NULL REFERENCES notes(id));";

/// A migration that leaves note 7 (no title) and card 2 (of a note that is not there).
fn leaves_two() -> Mig {
    let toml = "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n\
        [[step]]\nbackfill = \"notes\"\nset = \"words = length(title)\"\nwhere = \"words = 0\"\non_error = \"collect\"\n\
        [[step]]\nload = \"cards.ndjson\"\ninto = \"cards\"\nkey = [\"id\"]\nconflict = \"replace\"\non_error = \"collect\"\n";
    let cards = "{\"id\":1,\"note\":1}\n{\"id\":2,\"note\":99}\n{\"id\":3,\"note\":3}\n";
    Mig::up("0002_words", "CREATE INDEX notes_words ON notes(words);").toml(toml).file("cards.ndjson", cards)
}

/// A device that has come so far.
fn left(setting: &str) -> (tempfile::TempDir, Server, Device) {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let device = if setting.is_empty() { device } else { device.setting(setting) };
    server.publish("notes", &[Mig::up("0001_init", TABLES)]);
    device.once_well();
    let app = Connection::open(device.path("notes.db")).unwrap();
    app.execute_batch(
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40) INSERT INTO notes(title) SELECT 'note ' || i FROM n;
         UPDATE notes SET title = NULL WHERE id = 7;",
    )
    .unwrap();
    server.publish("notes", &[Mig::up("0001_init", TABLES), leaves_two()]);
    device.once_well();
    (stage, server, device)
}

fn reported(server: &Server, device: &Device, kind: &str) -> Value {
    let id = client_id(&device.path("notes.db"));
    until(SOON, "the server has the report", || server.history(&id).into_iter().find(|e| e["kind"] == kind && e["migration"] == "0002_words"))
}

#[test]
fn rows_that_were_left_out_are_tried_again_alone_when_they_are_mended() {
    let (_stage, server, device) = left("");
    let daemon = device.start();
    let file = device.path("notes.db");
    let rows = &reported(&server, &device, "completed")["rows"];
    assert_eq!((&rows["changed"], &rows["skipped"], &rows["failed"]), (&json!(41), &json!(0), &json!(2)), "{rows:#}");
    assert_eq!(rows["codes"], json!([{"code": 787, "rows": 1}, {"code": 1299, "rows": 1}]), "{rows:#}");
    assert!(rows.get("items").is_none(), "keys and messages stay here: {rows:#}");

    let shown = device.json(&["history", "--failed-items"]);
    assert_eq!((&shown["schema"], &shown["total"]), (&json!("whimbrel.failed-items/1"), &json!(2)), "{shown:#}");
    let keys: Vec<_> = shown["items"].as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["[7]", "cards.ndjson:2"]);
    assert_eq!(device.json(&["history", "--failed-items", "--limit", "1"])["items"].as_array().unwrap().len(), 1);
    device.run(&["history", "--failed-items"]).says(0, &["NOT NULL constraint failed: notes.words", "\"title\":null", "0002_words, step 3"]);

    // Half of it is mended: the other row stays, with its error as it is now.
    let app = Connection::open(&file).unwrap();
    app.execute("UPDATE notes SET title = 'mended' WHERE id = 7", []).unwrap();
    device.run(&["retry", "--failed-items"]).says(3, &["2 rows tried again: 1 done, 1 left"]);
    assert_eq!(one::<i64>(&file, "SELECT words FROM notes WHERE id = 7"), 6);
    assert_eq!(list(&file, "SELECT item FROM _whimbrel_failed_item"), ["cards.ndjson:2"]);
    let retried = reported(&server, &device, "retried");
    assert_eq!((&retried["by"], &retried["status"], &retried["rows"]["changed"]), (&json!("person"), &json!("completed"), &json!(1)), "{retried:#}");

    app.execute("INSERT INTO notes(id, title, words) VALUES (99, 'late', 1)", []).unwrap();
    let summary = device.json(&["retry", "--failed-items", "notes.db"]);
    assert_eq!(summary["items"], json!({"tried": 1, "done": 1, "left": 0}), "{summary:#}");
    assert_eq!(list(&file, "SELECT id || ' ' || note FROM cards ORDER BY id"), ["1 1", "2 99", "3 3"]);
    device.run(&["retry", "--failed-items"]).says(0, &["0 rows tried again"]);
    device.run(&["history", "--failed-items"]).says(0, &["no row was left out"]);
    assert_eq!(only(&daemon.status())["status"], "completed");
}

#[test]
fn rows_that_were_left_out_go_up_by_name_only_where_the_owner_says_so() {
    let (_stage, server, device) = left("report_values = true");
    let rows = &reported(&server, &device, "completed")["rows"];
    let keys: Vec<_> = rows["items"].as_array().unwrap().iter().map(|i| i["key"].as_str().unwrap()).collect();
    assert_eq!(keys, ["[7]", "cards.ndjson:2"], "{rows:#}");
}

#[test]
fn a_held_database_is_left_alone_and_its_rows_wait() {
    let (_stage, _server, device) = left("");
    let _daemon = device.start();
    device.run(&["hold"]);
    device.run(&["retry", "--failed-items"]).says(3, &["0 rows tried again", "holds this database"]);
    device.run(&["release"]);
    device.run(&["retry", "--failed-items"]).says(3, &["2 rows tried again: 0 done, 2 left"]);
}

#[test]
fn a_wrong_check_is_left_out_when_a_person_says_so_and_it_is_told() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE own(x); INSERT INTO own VALUES (1)");
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE notes2(id INTEGER PRIMARY KEY);").verify("SELECT * FROM pragma_table_list WHERE name = 'own';")]);
    let mut daemon = device.start();
    device.run(&["apply"]).says(4, &["0001_init"]);
    device.run(&["retry"]).says(4, &["0001_init"]);
    device.run(&["retry", "--no-wait"]);
    device.run(&["apply", "--skip-verify"]).says(4, &["0001_init"]);
    daemon.until(SOON, "it failed", |s| (only(s)["status"] == "failed").then_some(()));
}

#[test]
fn the_sizes_of_tables_are_shown_for_each_database() {
    let (_stage, _server, device) = left("");
    let _daemon = device.start();
    let shown = device.json(&["status", "--tables", "notes.db"]);
    let tables = shown["databases"][0]["tables"].as_array().unwrap();
    let notes = tables.iter().find(|t| t["table"] == "notes").unwrap_or_else(|| panic!("{shown:#}"));
    assert_eq!((&notes["rows"], &notes["rows_estimated"]), (&json!(40), &Value::Null), "{shown:#}");
    assert!(notes["bytes"].as_u64().unwrap() >= 8192, "with its index: {shown:#}");
    device.run(&["status", "--tables"]).says(0, &["TABLE", "notes", "cards"]);
}
