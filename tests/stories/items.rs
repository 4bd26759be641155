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
    CREATE TABLE cards(id INTEGER PRIMARY KEY, front TEXT UNIQUE);";

/// A migration that leaves note 7 (no title) and card 2 (whose front another one has).
fn leaves_two() -> Mig {
    let toml = "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n\
        [[step]]\nbackfill = \"notes\"\nset = \"words = length(title)\"\nwhere = \"words = 0\"\non_error = \"collect\"\n\
        [[step]]\nload = \"cards.ndjson\"\ninto = \"cards\"\nkey = [\"id\"]\nconflict = \"replace\"\non_error = \"collect\"\n";
    let cards = "{\"id\":1,\"front\":\"a\"}\n{\"id\":2,\"front\":\"b\"}\n{\"id\":3,\"front\":\"c\"}\n";
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
         UPDATE notes SET title = NULL WHERE id = 7;
         INSERT INTO cards VALUES (100, 'b');",
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
    let mut daemon = device.start();
    // Before its first look it knows no database.
    daemon.until(SOON, "it was looked at", |s| only(s)["client_id"].as_str().map(|_| ()));
    let file = device.path("notes.db");
    let rows = &reported(&server, &device, "completed")["rows"];
    assert_eq!((&rows["changed"], &rows["skipped"], &rows["failed"]), (&json!(41), &json!(0), &json!(2)), "{rows:#}");
    assert_eq!(rows["codes"], json!([{"code": 1299, "rows": 1}, {"code": 2067, "rows": 1}]), "{rows:#}");
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
    // One fact for each step that left rows, newest first: the load's, in which nothing changed, and the backfill's.
    let id = client_id(&file);
    let told = until(SOON, "the server has both", || Some(server.history(&id)).filter(|h| h.iter().filter(|e| e["kind"] == "retried").count() == 2));
    let done: Vec<_> = told.iter().filter(|e| e["kind"] == "retried").map(|e| (&e["rows"]["changed"], &e["rows"]["failed"])).collect();
    assert_eq!(done, [(&json!(0), &json!(1)), (&json!(1), &json!(0))], "{told:#?}");
    assert!(told[..2].iter().all(|e| e["by"] == "person" && e["status"] == "completed"), "{told:#?}");

    app.execute("DELETE FROM cards WHERE id = 100", []).unwrap();
    let summary = device.json(&["retry", "--failed-items", "notes.db"]);
    assert_eq!(summary["items"], json!({"tried": 1, "done": 1, "left": 0}), "{summary:#}");
    assert_eq!(list(&file, "SELECT id || ' ' || front FROM cards ORDER BY id"), ["1 a", "2 b", "3 c"]);
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
    let wrong = Mig::up("0001_init", "CREATE TABLE notes2(id INTEGER PRIMARY KEY);").verify("SELECT name FROM sqlite_schema WHERE name = 'own';");
    server.publish("notes", &[wrong]);
    let mut daemon = device.start();
    daemon.process.expect_error("0001_init");
    daemon.until(SOON, "the check has failed", |s| (only(s)["status"] == "failed").then_some(()));
    device.run(&["apply"]).says(4, &["0001_init"]);
    device.run(&["apply", "--skip-verify"]).says(0, &["1 at the planned version"]);
    let id = client_id(&device.path("notes.db"));
    let done = until(SOON, "the server knows", || server.history(&id).into_iter().find(|e| e["kind"] == "completed"));
    assert_eq!((&done["verify_skipped"], &done["by"]), (&json!(true), &json!("person")), "{done:#}");
    device.run(&["history"]).says(0, &["left out, as a person asked"]);
}

#[test]
fn the_sizes_of_tables_are_shown_for_each_database() {
    let (_stage, _server, device) = left("");
    let mut daemon = device.start();
    daemon.until(SOON, "it was looked at", |s| only(s)["client_id"].as_str().map(|_| ()));
    let shown = device.json(&["status", "--tables", "notes.db"]);
    let tables = shown["databases"][0]["tables"].as_array().unwrap();
    let notes = tables.iter().find(|t| t["table"] == "notes").unwrap_or_else(|| panic!("{shown:#}"));
    assert_eq!((&notes["rows"], &notes["rows_estimated"]), (&json!(40), &Value::Null), "{shown:#}");
    assert!(notes["bytes"].as_u64().unwrap() >= 8192, "with its index: {shown:#}");
    device.run(&["status", "--tables"]).says(0, &["TABLE", "notes", "cards"]);
}

#[test]
fn rows_go_out_of_one_database_and_into_another_without_a_daemon() {
    let (stage, _server, device) = left("");
    let (file, other) = (stage.path().join("rows.ndjson"), stage.path().join("other.db"));
    let written = device.json(&["export", "notes.db", "--table", "notes", "--table", "cards", "-o", file.to_str().unwrap()]);
    assert_eq!(written["tables"].as_array().unwrap().len(), 2, "{written:#}");
    device.run(&["export", "notes.db", "-o", file.to_str().unwrap()]).says(1, &["cannot be written"]);
    Connection::open(&other).unwrap().execute_batch(TABLES).unwrap();
    let import = |conflict: &str| device.json(&["import", other.to_str().unwrap(), file.to_str().unwrap(), "--conflict", conflict]);
    assert_eq!(import("skip")["tables"], json!([{"table": "cards", "rows": 3, "changed": 3}, {"table": "notes", "rows": 40, "changed": 40}]));
    assert_eq!(import("replace")["tables"][1]["changed"], 0, "twice is once");
    assert_eq!(one::<i64>(&other, "SELECT count(*) FROM notes WHERE title IS NULL"), 1);
    device.run(&["import", other.to_str().unwrap(), file.to_str().unwrap(), "--table", "gone"]).says(1, &["there is no table gone", "--table"]);
}
