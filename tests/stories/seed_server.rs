//! A server that has only the seed's two endpoints.

use std::time::Duration;

use serde_json::json;
use whimbrel_tests::{
    Device,
    device::{list, one},
    seed_server::FakeSeedServer,
    until,
};

use crate::{SOON, stage};

fn device(stage: &tempfile::TempDir, seed: &FakeSeedServer) -> Device {
    let device = Device::new(stage.path(), "device", &seed.url()).database("notes.db", "notes");
    device.make("notes.db", "");
    device
}

#[test]
fn the_daemon_works_with_a_server_that_has_only_the_seeds_two_endpoints() {
    let stage = stage();
    let seed = FakeSeedServer::start();
    let device = device(&stage, &seed);
    let file = device.path("notes.db");
    seed.add(
        1,
        "Init1",
        &[
            "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT)",
            "CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE)",
        ],
        &["DROP TABLE book", "DROP TABLE author"],
    );
    seed.add(2, "Rows2", &["INSERT INTO author VALUES (1, 'a')", "INSERT INTO book VALUES (1, 1)"], &[]);
    device.once_well();
    // TypeORM's rebuild, inside the seed's one transaction.
    let rebuild = [
        "PRAGMA foreign_keys=OFF",
        "CREATE TABLE \"temporary_author\" (id INTEGER PRIMARY KEY, name TEXT, age INTEGER)",
        "INSERT INTO \"temporary_author\"(id, name) SELECT id, name FROM author",
        "DROP TABLE author",
        "ALTER TABLE \"temporary_author\" RENAME TO author",
        "PRAGMA foreign_keys=ON",
    ];
    seed.add(3, "Rebuild3", &rebuild, &[]);
    seed.add(4, "Fails4", &["INSERT INTO author VALUES (1, 'again', 1)"], &[]);
    seed.add(5, "Never5", &["CREATE TABLE never(x)"], &[]);
    device.once().says(4, &["Fails4", "UNIQUE"]);
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM book"), 1);
    assert_eq!(list(&file, "SELECT name FROM sqlite_schema WHERE name = 'never'").len(), 0);
    let statuses = seed.statuses();
    let said = |name: &str| statuses.iter().filter(|s| s["migrationName"] == name).cloned().collect::<Vec<_>>();
    for name in ["Init1", "Rows2", "Rebuild3"] {
        assert_eq!(said(name).len(), 1, "{statuses:?}");
        assert_eq!(said(name)[0]["applied"], true);
    }
    assert_eq!(said("Fails4").len(), 1);
    assert_eq!(said("Fails4")[0]["applied"], false);
    assert!(said("Fails4")[0]["error"].as_str().unwrap().contains("UNIQUE"));
    assert!(said("Never5").is_empty());
}

#[test]
fn migrations_in_the_seeds_stored_form_are_read_too() {
    let stage = stage();
    let seed = FakeSeedServer::start();
    let device = device(&stage, &seed);
    // As a store keeps it: text where lists are, a number as text, more fields than we know.
    seed.set(vec![json!({
        "id": 7, "timestamp": "1700000000000", "migrationName": "Init1700000000000", "upQueries": "[\"CREATE TABLE a(x)\", \"INSERT INTO a VALUES (1); -- done\"]",
        "downQueries": null, "clientApplied": false, "createdAt": "2024-01-01"
    })]);
    device.once_well();
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM a"), 1);
}

#[test]
fn retry_after_is_obeyed() {
    let stage = stage();
    let seed = FakeSeedServer::start();
    let device = device(&stage, &seed);
    seed.add(1, "Init1", &["CREATE TABLE a(x)"], &[]);
    seed.busy(1, 3);
    let mut daemon = device.start();
    daemon.until_at(SOON, 1);
    until(SOON, "it is reported", || (!seed.statuses().is_empty()).then_some(()));
    let asked = seed.asked();
    let pause = asked[1].at - asked[0].at;
    assert!(pause >= Duration::from_secs(3) && pause < Duration::from_secs(6), "asked again after {pause:?}: {asked:?}");
    daemon.stop();
}

#[test]
fn our_own_server_speaks_the_seeds_form_too() {
    let stage = stage();
    let (server, device) = crate::pair(&stage, "");
    server.publish(
        "notes",
        &[whimbrel_tests::Mig::up("0001_init", "CREATE TABLE a(x); CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT CASE WHEN 1 THEN 2 END; END;")
            .down("DROP TABLE a;")],
    );
    let token: String = one(&device.state().join("device.db"), "SELECT value FROM setting WHERE key = 'device_token'");
    let ask = |headers: &str| whimbrel_tests::http::ask(server.addr(), "GET", "/api/migrations/pending", headers, b"").unwrap();
    assert_eq!(ask("").status(), 401);
    assert!(!ask("").json()["remedy"].as_str().unwrap().is_empty());
    let bearer = format!("Authorization: Bearer {token}\r\n");
    let answer = ask(&bearer);
    let pending = answer.json();
    assert_eq!(pending[0]["migrationName"], "0001_init");
    assert_eq!(pending[0]["upQueries"].as_array().unwrap().len(), 2, "{pending}");
    let etag = &answer.headers["etag"];
    assert_eq!(ask(&format!("{bearer}If-None-Match: {etag}\r\n")).status(), 304);
    let body = json!({ "migrationName": "0001_init", "applied": true, "error": null }).to_string();
    let told = whimbrel_tests::http::ask(server.addr(), "POST", "/api/migrations/status", &bearer, body.as_bytes()).unwrap();
    assert_eq!((told.status(), &told.json()["success"]), (200, &json!(true)));
    assert_eq!(ask(&bearer).json(), json!([]));
}
