//! The seed systems' known faults, one story each that shows that we do not have it.

use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::json;
use whimbrel_shared::ids::Digest;
use whimbrel_tests::{
    Device, Mig, Server, Wire, content_hash,
    device::{client_id, list, one, only},
    seed_server::FakeSeedServer,
    until,
};

use crate::{SOON, pair, stage};

#[test]
fn what_one_client_applied_is_still_pending_for_the_others() {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE notes(x)")]);
    let token = server.token("notes");
    let device = |name: &str| {
        let device = Device::new(stage.path(), name, &server.url()).database("notes.db", "notes");
        device.make("notes.db", "");
        device.enroll(&token);
        device
    };
    let (first, second) = (device("first"), device("second"));
    first.once_well();
    assert_eq!(server.get("/api/migrations?app=notes")["migrations"][0]["completed"], 1);
    second.once_well();
    assert_eq!(one::<u32>(&second.path("notes.db"), "SELECT count(*) FROM notes"), 0);
    assert_eq!(server.get("/api/migrations?app=notes")["migrations"][0]["completed"], 2);
}

#[test]
fn sql_that_was_published_or_accepted_is_never_overwritten() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE notes(x)")]);
    device.once_well();
    let before = content_hash(&device.path("notes.db"));

    // The server refuses the changed text.
    let folder = stage.path().join("changed");
    whimbrel_tests::migrations::write(&folder, &[Mig::up("0001_init", "CREATE TABLE notes(x, y)")]);
    let output = server.try_publish("notes", &folder);
    assert!(!output.status.success());
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("0001_init"), "{said}");

    // And the device refuses a server that offers it all the same.
    let liar = Server::start(&stage.path().join("liar"));
    liar.publish_unchecked("notes", &[Mig::up("0001_init", "DROP TABLE notes"), Mig::up("0002_more", "CREATE TABLE more(x)")]);
    let lying = liar.get_repository("notes");
    let wire = Wire::to(server.addr());
    wire.tamper(move |request, answer| {
        let mut answer = answer.clone();
        if request.target().1.ends_with("/targets.json") {
            answer.body = lying.clone();
        } else if request.target().1 == "/api/poll" && answer.status() == 200 {
            let mut poll = answer.json();
            poll["repository"]["notes"]["version"] = json!(99);
            poll["repository"]["notes"]["digest"] = json!(Digest::of(&lying));
            // As if nothing were to be done: the alarm alone has to be heard.
            poll["plans"][0]["order"] = json!({ "order": "apply_up_to", "version": 1 });
            answer.body = poll.to_string().into_bytes();
        }
        // Another answer than before, each time.
        answer.headers.remove("etag");
        answer.to_bytes()
    });
    let mut device = device;
    device.lead_to(&wire.url());
    // A new migration, so that the poll has something new to say.
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE notes(x)"), Mig::up("0002_true", "CREATE TABLE two(x)")]);
    let outcome = device.once();
    assert!(outcome.said().contains("0001_init") && outcome.said().contains("accepted"), "{outcome}");
    assert_ne!(outcome.code, 0, "{outcome}");
    assert_eq!(content_hash(&device.path("notes.db")), before);

    device.lead_to(&server.url());
    device.once_well();
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM two"), 0);
}

#[test]
fn a_failure_stops_the_chain_behind_it() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE theirs(x UNIQUE); INSERT INTO theirs VALUES (1);");
    let chain = [
        Mig::up("0001_good", "CREATE TABLE good(x)"),
        Mig::up("0002_bad", "CREATE TABLE half(x); INSERT INTO theirs VALUES (1);"),
        Mig::up("0003_next", "CREATE TABLE next(x)"),
    ];
    server.publish_unchecked("notes", &chain);
    device.once().says(4, &["0002_bad", "UNIQUE", "up.sql", "INSERT INTO theirs"]);
    let file = device.path("notes.db");
    assert_eq!(
        list(&file, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '\\_whimbrel%' ESCAPE '\\' ORDER BY name"),
        ["good", "theirs"]
    );
    let statuses = server.statuses(&client_id(&file));
    assert_eq!(statuses[..2], [("0001_good".to_owned(), "completed".to_owned()), ("0002_bad".to_owned(), "failed".to_owned())]);
    assert!(statuses.get(2).is_none_or(|s| s.1 == "pending"), "{statuses:?}");
}

#[test]
fn nothing_is_stuck_for_ever_after_three_attempts() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE theirs(x UNIQUE); INSERT INTO theirs VALUES (1);");
    server.publish_unchecked("notes", &[Mig::up("0001_collides", "INSERT INTO theirs VALUES (1);")]);
    let file = device.path("notes.db");
    for _ in 0..5 {
        // Tried once, and then not blindly again; but always shown, with what to do.
        device.once().says(4, &["0001_collides", "whimbrel retry"]);
    }
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event WHERE kind = 'failed'"), 1);
    Connection::open(&file).unwrap().execute("DELETE FROM theirs", []).unwrap();
    let mut daemon = device.start();
    daemon.process.expect_error("0001_collides");
    assert_eq!(only(&daemon.status())["status"], "failed");
    let outcome = device.run(&["retry"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    daemon.until_settled(SOON, 1);
    assert_eq!(server.statuses(&client_id(&file))[0].1, "completed");
}

#[test]
fn failed_exchanges_are_tried_again_with_growing_pauses() {
    let stage = stage();
    let seed = FakeSeedServer::start();
    seed.busy(u32::MAX, 0);
    let wire = Wire::to(seed.addr());
    wire.set(whimbrel_tests::wire::Mode::Reset);
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    device.make("notes.db", "");
    let mut daemon = device.start();
    let mut pauses = Vec::new();
    let mut seen = 0;
    // Four failures; each pause is drawn from a range that doubles, so the ranges are checked and not the pauses.
    daemon.until(Duration::from_secs(60), "three failures", |status| {
        let server = &status["server"];
        let failures = server["failures"].as_u64().unwrap_or(0);
        if failures > seen && status["daemon"]["activity"] == "idle" {
            seen = failures;
            let now_ms = i64::try_from(std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis()).unwrap();
            pauses.push((failures, server["next_poll_ms"].as_i64().unwrap_or(0) - now_ms));
        }
        (seen >= 3).then_some(())
    });
    for (failures, pause_ms) in &pauses {
        let most = 5_000 << (failures - 1);
        assert!(*pause_ms <= most + 500, "after {failures} failures a pause of {pause_ms} ms");
    }
    let status = daemon.status();
    assert_eq!(status["server"]["state"], "offline");
    assert!(!status["server"]["remedy"].is_null());
    // Not once a second: at most a handful of connections so far. A daemon looks for the seed's endpoints too.
    assert!(wire.connections() <= 4 * usize::try_from(seen).unwrap() + 4, "{} connections for {seen} failures", wire.connections());
}

#[test]
fn what_happened_is_reported() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE theirs(x UNIQUE); INSERT INTO theirs VALUES (1);");
    server.publish_unchecked("notes", &[Mig::up("0001_good", "CREATE TABLE good(x)"), Mig::up("0002_bad", "INSERT INTO theirs VALUES (1)")]);
    assert_eq!(device.once().code, 4);
    let detail = server.get(&format!("/api/clients/{}", client_id(&device.path("notes.db"))));
    let migrations = detail["migrations"].as_array().unwrap();
    assert_eq!((&migrations[0]["status"], &migrations[1]["status"]), (&json!("completed"), &json!("failed")));
    assert!(migrations[0]["completed_at_ms"].is_i64() && migrations[0]["started_at_ms"].is_i64(), "{detail:#}");
    assert!(migrations[1]["failure"]["message"].as_str().unwrap().contains("UNIQUE"), "{detail:#}");
    assert!(migrations[1]["failure"]["remedy"].is_object(), "{detail:#}");
    let kinds: Vec<_> = detail["history"].as_array().unwrap().iter().rev().map(|e| e["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds.first(), Some(&"started"));
    assert!(kinds.contains(&"completed") && kinds.contains(&"failed"), "{kinds:?}");
}

#[test]
fn migrations_run_in_the_order_of_the_chain_and_not_of_their_arrival() {
    let stage = stage();
    let seed = FakeSeedServer::start();
    seed.add(1_700_000_003_000, "Third1700000003000", &["INSERT INTO steps VALUES (3)"], &[]);
    seed.add(1_700_000_001_000, "First1700000001000", &["CREATE TABLE steps(n)"], &[]);
    seed.add(1_700_000_002_000, "Second1700000002000", &["INSERT INTO steps VALUES (2)"], &[]);
    let device = Device::new(stage.path(), "device", &seed.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.once_well();
    assert_eq!(list(&file, "SELECT n || '' FROM steps ORDER BY rowid"), ["2", "3"]);
    let reported: Vec<_> = seed.statuses().iter().map(|s| s["migrationName"].as_str().unwrap().to_owned()).collect();
    assert_eq!(reported, ["First1700000001000", "Second1700000002000", "Third1700000003000"]);
}

#[test]
fn a_revert_does_not_cascade_child_rows_away() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let chain = [
        Mig::up("0001_init", "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE);"),
        Mig::up("0002_age", "ALTER TABLE author ADD COLUMN age INTEGER;")
            // The seed's queries run inside one transaction, where this pragma does nothing by itself.
            .down("PRAGMA foreign_keys=OFF; CREATE TABLE a2(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO a2 SELECT id, name FROM author; DROP TABLE author; ALTER TABLE a2 RENAME TO author; PRAGMA foreign_keys=ON;"),
    ];
    server.publish("notes", &chain);
    device.once_well();
    let file = device.path("notes.db");
    let app = Connection::open(&file).unwrap();
    app.execute_batch("INSERT INTO author VALUES (1, 'a', 50), (2, 'b', NULL); INSERT INTO book VALUES (1, 1), (2, 1), (3, 2);").unwrap();
    server.plan("notes", &json!({ "order": "revert_down_to", "version": 1 }));
    device.once_well();
    assert_eq!(list(&file, "SELECT id || ' ' || author_id FROM book ORDER BY id"), ["1 1", "2 1", "3 2"]);
    assert_eq!(list(&file, "SELECT name FROM pragma_table_info('author') ORDER BY cid"), ["id", "name"]);
}

#[test]
fn the_lock_is_the_kernels_and_not_a_flag_in_memory() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE seen(n)");
    let wait = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 3000000) INSERT INTO seen SELECT max(n) FROM c;";
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE other(x)"), Mig::up("0002_long", wait.replace("seen", "other"))]);
    // A clone of the whole device, by its state: another process with another memory.
    let twin = Device::new(stage.path(), "twin", &server.url()).database(device.path("notes.db").to_str().unwrap(), "notes");
    let copied = std::process::Command::new("cp").arg("-a").arg(device.state()).arg(twin.state()).status().unwrap();
    assert!(copied.success());
    let begun = Instant::now();
    let (mut one_of_two, mut other) = (device.once_in_background(), twin.once_in_background());
    let codes = [one_of_two.wait(SOON), other.wait(SOON)].map(|s| s.code());
    assert!(codes.contains(&Some(0)) && codes.iter().all(|c| matches!(c, Some(0 | 3))), "{codes:?} after {:?}", begun.elapsed());
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM other"), 1);
    until(SOON, "both have ended", || one_of_two.ended().and(other.ended()));
}
