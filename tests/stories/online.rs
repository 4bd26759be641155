//! Online migrations, as a person and an operator see them.

use whimbrel_tests::{
    App, Mig,
    device::{one, only},
    until,
};

use crate::{SOON, pair, stage};

/// A backfill that takes some minutes if it is let.
fn slow() -> Vec<Mig> {
    vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT NOT NULL); CREATE TABLE app_log(id INTEGER PRIMARY KEY, body TEXT);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 500000) INSERT INTO notes(title) SELECT 'Note ' || i FROM n;",
        ),
        Mig::up("0002_slugs", "ALTER TABLE notes ADD COLUMN slug TEXT;").toml(
            "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"slug = lower(title)\"\nwhere = \"slug IS NULL\"\nbatch = 1\n",
        ),
    ]
}

#[test]
fn a_long_backfill_shows_its_progress_here_and_at_the_server_and_is_paused_and_resumed() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &slow());
    let file = device.path("notes.db");
    let mut daemon = device.start();
    let shown = daemon.until(SOON, "status shows rows", |s| {
        let rows = &only(s)["now"]["rows"];
        (rows["done"].as_u64()? > 0 && rows["rate"].as_u64()? > 0 && rows["left_ms"].is_u64()).then(|| rows.clone())
    });
    assert!(shown["table"] == "notes" && shown["total"] == 500_000, "{shown:#}");
    let told = until(SOON, "the server knows how far it is", || {
        let progress = server.clients("notes").pop()?["state"]["progress"].clone();
        progress["done"].as_u64().map(|_| progress)
    });
    assert!(told["migration"] == "0002_slugs" && told["step"] == 2 && told["steps"] == 2, "{told:#}");

    // The application goes on, and is let in first.
    let app = App::writing(&file, "app_log", 5, 5_000);
    daemon.until(SOON, "it gives way", |s| (only(s)["now"]["rows"]["throttle"] == "app").then_some(()));

    device.run(&["hold"]);
    daemon.until(SOON, "it is paused", |s| (only(s)["now"]["phase"] == "idle").then_some(()));
    let done = || one::<u32>(&file, "SELECT count(*) FROM notes WHERE slug IS NOT NULL");
    let paused = done();
    assert!((1..500_000).contains(&paused), "{paused}");
    assert_eq!(one::<u32>(&file, "SELECT examined FROM _whimbrel_checkpoint"), paused);
    assert!(server.clients("notes")[0]["state"]["version"] == 1);
    let count = app.stop();
    assert_eq!((&count["busy"], count["errors"].as_array().map(Vec::len)), (&0.into(), Some(0)), "{count}");
    assert_eq!(done(), paused, "nothing moves while it is held");

    device.run(&["release"]);
    daemon.until(SOON, "it goes on from where it stood", |s| (only(s)["now"]["rows"]["done"].as_u64()? > u64::from(paused)).then_some(()));
    assert!(done() >= paused);
    daemon.stop();
}
