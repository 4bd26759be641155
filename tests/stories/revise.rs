//! A published migration that fails somewhere is mended with a new revision, and nobody else notices.

use std::fs;

use serde_json::json;
use whimbrel_tests::{
    Device, Mig, Server,
    device::{client_id, one},
    migrations, until,
};

use crate::{SOON, stage};

/// What version 2 is on each device: revision and status.
fn second(device: &Device) -> String {
    one(&device.path("notes.db"), "SELECT revision || ' ' || status FROM _whimbrel_migration WHERE version = 2")
}

#[test]
fn a_revision_mends_a_migration_for_the_one_device_of_three_on_which_it_fails() {
    let stage = stage();
    let server = Server::start(stage.path());
    let folder = stage.path().join("migrations");
    let devices = ["one", "two", "three"].map(|name| {
        let device = Device::new(stage.path(), name, &server.url()).database("notes.db", "notes");
        device.make("notes.db", "");
        device.enroll(&server.token("notes"));
        device
    });
    let mut chain = vec![Mig::up("0001_init", "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT);").down("DROP TABLE notes;")];
    let publish = |chain: &[Mig], more: &[&str]| {
        let _ = fs::remove_dir_all(&folder);
        migrations::write(&folder, chain);
        server.try_publish_with("notes", &folder, more)
    };
    assert!(publish(&chain, &[]).status.success());
    for device in &devices {
        device.once_well();
    }
    // Only here is a title twice.
    device_rows(&devices[2]);

    chain.push(
        Mig::up("0002_slugs", "ALTER TABLE notes ADD COLUMN slug TEXT;")
            .toml(
                "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"slug = lower(coalesce(title, ''))\"\nwhere = \"slug IS NULL\"\n[[step]]\nsql = \"index.sql\"\n",
            )
            .file("index.sql", "CREATE UNIQUE INDEX notes_slug ON notes(slug);")
            .down("DROP INDEX IF EXISTS notes_slug; ALTER TABLE notes DROP COLUMN slug;"),
    );
    assert!(publish(&chain, &[]).status.success());
    devices[0].once_well();
    devices[1].once_well();
    devices[2].run(&["run", "--once"]).says(4, &["UNIQUE", "notes.slug"]);
    assert_eq!(second(&devices[2]), "1 failed");

    // A changed text is refused, and the refusal names the flag; one that ends elsewhere is refused with it.
    chain[1] = chain[1].clone().down("DROP INDEX IF EXISTS notes_slug; ALTER TABLE notes DROP COLUMN slug; -- back");
    let toml = chain[1].toml.clone().unwrap();
    chain[1] = chain[1].clone().toml(toml.replace("lower(coalesce(title, ''))", "lower(coalesce(title, '')) || '-' || id"));
    let output = publish(&chain, &[]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("--revise 0002_slugs"), "{output:?}");
    let mut elsewhere = chain.clone();
    elsewhere[1] = elsewhere[1].clone().file("index.sql", "CREATE INDEX notes_slug ON notes(slug);");
    let output = publish(&elsewhere, &["--revise", "0002_slugs"]);
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("another schema than revision 1"), "{output:?}");
    let output = publish(&chain, &["--revise", "0002_slugs"]);
    assert!(output.status.success() && String::from_utf8_lossy(&output.stdout).contains("0002_slugs, revision 2"), "{output:?}");
    let again = publish(&chain, &["--revise", "0002_slugs"]);
    assert!(again.status.success() && String::from_utf8_lossy(&again.stdout).contains("nothing new"), "{again:?}");

    for device in &devices {
        device.once_well();
    }
    assert_eq!(devices.each_ref().map(second), ["1 completed", "1 completed", "2 completed"]);
    assert_eq!(one::<String>(&devices[2].path("notes.db"), "SELECT group_concat(slug, ' ') FROM (SELECT slug FROM notes ORDER BY id)"), "a-1 a-2");

    chain.push(Mig::up("0003_tags", "CREATE TABLE tags(id INTEGER PRIMARY KEY);").down("DROP TABLE tags;"));
    assert!(publish(&chain, &[]).status.success());
    for device in &devices {
        device.once_well();
    }
    assert!(server.clients("notes").iter().all(|c| c["state"]["version"] == 3));
    let fingerprints: std::collections::BTreeSet<_> = server.clients("notes").iter().map(|c| c["state"]["fingerprint"].to_string()).collect();
    assert_eq!(fingerprints.len(), 1, "{fingerprints:?}");

    // Each goes down by the revision that ran on it.
    server.plan("notes", &json!({ "order": "revert_down_to", "version": 1 }));
    let third = client_id(&devices[2].path("notes.db"));
    for device in &devices {
        let mut daemon = device.start();
        daemon.until_at(SOON, 1);
        if device.path("notes.db") == devices[2].path("notes.db") {
            until(SOON, "the revert of revision 2 is reported", || {
                let reported = server.history(&third);
                reported.iter().any(|e| e["version"] == 2 && e["revision"] == 2 && e["kind"] == "reverted").then_some(())
            });
        }
        daemon.stop();
    }
    assert_eq!(devices.each_ref().map(second), ["1 reverted", "1 reverted", "2 reverted"]);
}

fn device_rows(device: &Device) {
    let app = rusqlite::Connection::open(device.path("notes.db")).unwrap();
    app.execute_batch("INSERT INTO notes(title) VALUES ('A'), ('a');").unwrap();
}

#[test]
fn a_person_takes_back_an_online_migration_that_stopped_half_way() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes");
    device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    let mut chain = vec![Mig::up("0001_init", "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT);").down("DROP TABLE notes;")];
    server.publish("notes", &chain);
    device.once_well();
    device_rows(&device);
    chain.push(
        Mig::up("0002_slugs", "ALTER TABLE notes ADD COLUMN slug TEXT;")
            .toml(
                "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"slug = lower(title)\"\nwhere = \"slug IS NULL\"\n[[step]]\nsql = \"index.sql\"\n",
            )
            .file("index.sql", "CREATE UNIQUE INDEX notes_slug ON notes(slug);")
            .down("DROP INDEX IF EXISTS notes_slug; ALTER TABLE notes DROP COLUMN slug;"),
    );
    server.publish("notes", &chain);
    device.run(&["run", "--once"]).says(4, &["UNIQUE", "notes.slug"]);
    assert_eq!(second(&device), "1 failed");
    let daemon = device.start();
    let file = device.path("notes.db");
    let outcome = device.run(&["revert", "0002_slugs", "--yes"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    assert_eq!(second(&device), "1 reverted");
    let columns = "SELECT group_concat(name, ' ') FROM pragma_table_info('notes')";
    assert_eq!(one::<String>(&file, columns), "id title", "version 1 stays");
    assert_eq!(one::<String>(&file, "SELECT status FROM _whimbrel_migration WHERE version = 1"), "completed");
    let id = client_id(&file);
    until(SOON, "the server knows", || server.statuses(&id).iter().any(|(n, s)| n == "0002_slugs" && s == "reverted").then_some(()));
    daemon.stop();
}
