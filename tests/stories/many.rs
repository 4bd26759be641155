//! Many databases of one device.

use serde_json::json;
use whimbrel_tests::{
    Device, Mig, Server,
    device::{client_id, list, one},
    night,
};

use crate::{SOON, stage};

#[test]
fn many_databases_by_a_pattern_three_at_a_time_and_one_that_fails_alone() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).setting("parallel = 3").database("users/*.db", "notes");
    std::fs::create_dir(device.path("users")).unwrap();
    let files: u32 = if night() { 1_000 } else { 12 };
    for n in 0..files {
        device.make(
            &format!("users/{n}.db"),
            if n == 5 { "CREATE TABLE theirs(x UNIQUE); INSERT INTO theirs VALUES (1)" } else { "CREATE TABLE theirs(x UNIQUE)" },
        );
    }
    device.enroll(&server.token("notes"));
    server.publish_unchecked(
        "notes",
        &[Mig::up("0001_init", "CREATE TABLE a(x)"), Mig::up("0002_row", "INSERT INTO theirs VALUES (1)"), Mig::up("0003_more", "CREATE TABLE b(x)")],
    );
    let outcome = device.run(&["run", "--once", "--json"]);
    assert_eq!(outcome.code, 4, "{outcome}");
    let summary = outcome.json();
    let counts = ["total", "completed", "failed", "skipped", "migrations"].map(|k| summary[k].clone());
    assert_eq!(counts, [files, files - 1, 1, 0, (files - 1) * 3 + 1].map(|n| json!(n)), "{summary:#}");
    let errors = summary["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{summary:#}");
    assert!(errors[0]["database"].as_str().unwrap().ends_with("users/5.db") && errors[0]["migration"] == "0002_row", "{summary:#}");
    for n in 0..files {
        let wanted = if n == 5 { 1 } else { 3 };
        assert_eq!(
            one::<u32>(&device.path(&format!("users/{n}.db")), "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"),
            wanted,
            "{n}"
        );
    }
    // A page of the server's has at most 500.
    assert_eq!(server.clients("notes").len(), files.min(500) as usize);
    let outdated = server.get("/api/clients?app=notes&outdated=1");
    assert_eq!(outdated["clients"].as_array().unwrap().len(), 1);
    assert_eq!(outdated["clients"][0]["state"]["client_id"], client_id(&device.path("users/5.db")));
}

#[test]
fn a_database_that_appears_later_is_found_and_a_copy_becomes_a_database_of_its_own() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("users/*.db", "notes");
    std::fs::create_dir(device.path("users")).unwrap();
    device.make("users/a.db", "");
    device.enroll(&server.token("notes"));
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE a(x)")]);
    device.once_well();
    let original = device.path("users/a.db");
    device.make("users/b.db", "");
    std::fs::copy(&original, device.path("users/c.db")).unwrap();
    device.once_well();
    let ids: std::collections::BTreeSet<_> = ["a", "b", "c"].iter().map(|n| client_id(&device.path(&format!("users/{n}.db")))).collect();
    assert_eq!(ids.len(), 3, "a copy kept its original's id");
    assert_eq!(server.clients("notes").len(), 3);
    device.once_well();
    assert!(server.clients("notes").iter().all(|c| c["state"]["version"] == 1));
}

#[test]
fn a_database_that_is_not_there_yet_is_made_by_its_first_migration_unless_that_is_switched_off() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("new.db", "notes").database_with("never.db", "notes", "create = false");
    device.enroll(&server.token("notes"));
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE a(x)")]);
    let outcome = device.once();
    assert!([0, 3].contains(&outcome.code), "{outcome}");
    assert_eq!(one::<u32>(&device.path("new.db"), "SELECT count(*) FROM a"), 0);
    assert!(!device.path("never.db").exists());
    let mut daemon = device.start();
    daemon.until(SOON, "both are shown", |s| (s["databases"].as_array().map(Vec::len) == Some(2)).then_some(()));
}

#[test]
fn one_device_serves_several_apps_with_one_identity() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes").database("tasks.db", "tasks");
    device.make("notes.db", "");
    device.make("tasks.db", "");
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE n(x)")]);
    server.publish("tasks", &[Mig::up("0001_init", "CREATE TABLE t(x)"), Mig::up("0002_more", "CREATE TABLE u(x)")]);
    device.enroll(&server.token("notes"));
    // Not enrolled for the second app yet: the first is not held up.
    let outcome = device.once();
    assert!([1, 3, 4].contains(&outcome.code) && outcome.said().contains("tasks"), "{outcome}");
    assert!(
        device.path("notes.db").exists() && list(&device.path("notes.db"), "SELECT name FROM sqlite_schema WHERE name = 'n'").len() == 1,
        "held up: {outcome}"
    );
    device.enroll(&server.token("tasks"));
    device.once_well();
    assert_eq!(one::<u32>(&device.path("tasks.db"), "SELECT count(*) FROM u"), 0);
    let ids = ["notes", "tasks"].map(|app| server.clients(app)[0]["device_id"].clone());
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_file_copied_to_another_device_becomes_a_database_of_its_own_by_itself() {
    let stage = stage();
    let (server, device) = crate::pair(&stage, "CREATE TABLE mine(x)");
    let chain = [Mig::up("0001_init", "CREATE TABLE one(x)"), Mig::up("0002_more", "CREATE TABLE two(x)")];
    server.publish("notes", &chain[..1]);
    device.once_well();
    let original = client_id(&device.path("notes.db"));
    let history = server.history(&original).len();

    let other = Device::new(stage.path(), "other", &server.url()).database("notes.db", "notes");
    std::fs::copy(device.path("notes.db"), other.path("notes.db")).unwrap();
    other.enroll(&server.token("notes"));
    let mut daemon = other.start();
    daemon.until_settled(SOON, 1);
    let copy = client_id(&other.path("notes.db"));
    assert_ne!(copy, original);
    let status = daemon.status();
    let said = whimbrel_tests::device::only(&status)["health"]
        .as_array()
        .unwrap()
        .iter()
        .any(|h| h["code"] == "copied" && h["message"].as_str().unwrap().contains(&original));
    assert!(said, "{status:#}");
    assert_eq!(status["health"].as_array().unwrap().iter().filter(|h| h["severity"] == "error").count(), 0, "{status:#}");
    daemon.stop();

    // Both go on, each under its name; the past stays in the file, and the server has it once.
    server.publish("notes", &chain);
    device.once_well();
    other.once_well();
    assert_eq!(server.clients("notes").len(), 2);
    assert_eq!(server.statuses(&copy).iter().filter(|(name, status)| name == "0002_more" && status == "completed").count(), 1);
    assert!(server.history(&original).len() > history);
    assert_eq!(whimbrel_tests::device::one::<u32>(&other.path("notes.db"), "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), 2);
    assert_eq!(client_id(&other.path("notes.db")), copy);
}
