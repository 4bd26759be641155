//! A large table gets another shape while its application goes on writing into it.

use std::{path::Path, time::Instant};

use serde_json::Value;
use whimbrel_tests::{
    App, Device, Mig, Server,
    device::{client_id, list, one, only},
    process::code,
    sample, until, wait,
};

use crate::{SOON, pair, stage};

/// Rows of the table before the application writes.
const ROWS: u32 = 20_000;
/// Between two rows that the application writes.
const EVERY_MS: u32 = 3;

fn init() -> Mig {
    Mig::up(
        "0001_init",
        format!(
            "CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body TEXT); CREATE INDEX notes_body ON notes(body);
             CREATE TABLE tags(note INTEGER REFERENCES notes(id) ON DELETE CASCADE);
             WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {ROWS}) INSERT INTO notes(title, body) SELECT nullif('Note ' || i, 'Note 7'), 'body ' || i FROM n;
             INSERT INTO tags SELECT id FROM notes WHERE id % 100 = 0;"
        ),
    )
}

fn rebuilt(batch: u32) -> Mig {
    Mig::up("0002_strict", "")
        .file("notes.sql", "CREATE TABLE notes(id INTEGER PRIMARY KEY AUTOINCREMENT, body TEXT NOT NULL, title TEXT NOT NULL DEFAULT '') STRICT;")
        .toml(format!(
            "mode = \"online\"\n[[step]]\nrebuild = \"notes\"\nas = \"notes.sql\"\nvalues = {{ title = \"coalesce(title, '')\" }}\nbatch = {batch}\n"
        ))
}

/// The table has its new shape and every row, those that the application wrote among them, once each.
#[track_caller]
fn is_whole(file: &Path, counted: &[Value], what: &str) {
    let written: u64 = counted.iter().map(|count| count["done"].as_u64().unwrap()).sum();
    for count in counted {
        assert_eq!((&count["busy"], count["errors"].as_array().map(Vec::len)), (&0.into(), Some(0)), "{what}: {count}");
    }
    let number = |sql: &str| one::<i64>(file, sql);
    assert_eq!(number("SELECT count(*) FROM notes WHERE body LIKE 'written %'").unsigned_abs(), written, "{what}: what the application wrote");
    assert_eq!(number("SELECT count(*) FROM notes WHERE body = 'body ' || id"), i64::from(ROWS), "{what}: what was there");
    assert_eq!(number("SELECT count(*) FROM notes WHERE title = 'Note ' || id"), i64::from(ROWS) - 1, "{what}: titles");
    assert_eq!(number("SELECT count(*) FROM tags"), i64::from(ROWS) / 100, "{what}: children");
    assert_eq!(number("SELECT strict FROM pragma_table_list WHERE name = 'notes'"), 1, "{what}: its new shape");
    assert_eq!(number("SELECT count(*) FROM sqlite_schema WHERE name = 'notes_body' AND tbl_name = 'notes'"), 1, "{what}: its index");
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_whimbrel\\_side%' ESCAPE '\\' OR name LIKE '\\_whimbrel\\_aside%' ESCAPE '\\' OR name LIKE '\\_whimbrel\\_catch%' ESCAPE '\\'";
    assert_eq!(number(ours), 0, "{what}: nothing of ours is left");
    assert_eq!(number("SELECT count(*) FROM _whimbrel_checkpoint") + number("SELECT count(*) FROM _whimbrel_touched"), 0, "{what}");
    assert_eq!(one::<String>(file, "SELECT group_concat(integrity_check, ';') FROM pragma_integrity_check"), "ok", "{what}");
    assert_eq!(number("SELECT count(*) FROM pragma_foreign_key_check"), 0, "{what}");
}

#[test]
fn a_table_is_rebuilt_while_it_is_written_to_and_a_pause_a_crash_and_a_restart_change_nothing() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[init()]);
    let file = device.path("notes.db");
    let mut daemon = device.start();
    daemon.until_settled(SOON, 1);
    let app = App::writing(&file, "notes", EVERY_MS, 5_000);

    server.publish("notes", &[init(), rebuilt(40)]);
    daemon.poll();
    let shown = daemon.until(SOON, "status shows rows", |s| {
        let now = &only(s)["now"];
        (now["rows"]["done"].as_u64()? > 500).then(|| now.clone())
    });
    assert!(shown["rows"]["table"] == "notes" && shown["rows"]["total"].as_u64() >= Some(u64::from(ROWS)), "{shown:#}");

    device.run(&["hold"]);
    daemon.until(SOON, "it is paused", |s| (only(s)["now"]["phase"] == "idle").then_some(()));
    let examined = || one::<u32>(&file, "SELECT examined FROM _whimbrel_checkpoint");
    let paused = examined();
    assert!((500..ROWS).contains(&paused), "{paused}");
    let before = one::<i64>(&file, "SELECT count(*) FROM notes");
    until(SOON, "the application goes on", || (one::<i64>(&file, "SELECT count(*) FROM notes") > before + 50).then_some(()));
    assert_eq!(examined(), paused, "nothing moves while it is held");

    device.run(&["release"]);
    daemon.until(SOON, "it goes on from where it stood", |s| (only(s)["now"]["rows"]["done"].as_u64()? > u64::from(paused)).then_some(()));
    daemon.kill();
    let crashed = examined();
    assert!((paused..ROWS).contains(&crashed), "{crashed}");
    let mut daemon = device.start();
    daemon.until(SOON, "it goes on after the crash", |s| (only(s)["now"]["rows"]["done"].as_u64()? > u64::from(crashed)).then_some(()));
    daemon.stop();
    assert!(examined() > crashed, "it began again");
    let mut daemon = device.start();
    daemon.until_settled(SOON * 4, 2);
    let counted = app.stop();
    is_whole(&file, &[counted], "daemon");
    assert_eq!(server.statuses(&client_id(&file))[0].1, "completed");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event WHERE kind = 'crashed'"), 1);
    daemon.stop();
}

#[test]
fn a_rebuild_that_is_killed_goes_on_where_it_stood_and_loses_no_row_of_the_application() {
    let stage = stage();
    let server = Server::start(stage.path());
    let seed = std::env::var("WHIMBREL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut dice = fastrand::Rng::with_seed(seed);
    let device = |name: &str, app: &str| {
        let device = Device::new(stage.path(), name, &server.url()).database("app.db", app).table("[apply]\nmax_attempts = 0");
        device.make("app.db", "");
        device.enroll(&server.token(app));
        device
    };
    // How long it takes when nobody kills it, beside the same application.
    let prepare = |name: &str| {
        server.publish(name, &[init()]);
        let device = device(name, name);
        device.once_well();
        let app = App::writing(&device.path("app.db"), "notes", EVERY_MS, 5_000);
        server.publish(name, &[init(), rebuilt(100)]);
        (device, app)
    };
    let (whole, app) = prepare("uninterrupted");
    let begun = Instant::now();
    whole.once_well();
    let took = begun.elapsed();
    is_whole(&whole.path("app.db"), &[app.stop()], "uninterrupted");

    let kills = sample(10, 150);
    let (mut killed, mut among_rows, mut passes) = (0, 0, 0);
    while killed < kills {
        passes += 1;
        let what = format!("seed {seed}, pass {passes}");
        let (device, app) = prepare(&format!("pass{passes}"));
        let file = device.path("app.db");
        loop {
            let before = list(&file, "SELECT CAST(unit * 1000000 + examined AS TEXT) FROM _whimbrel_checkpoint");
            let mut process = device.once_in_background();
            wait::moment(took.mul_f64(dice.f64() * 0.4));
            if let Some(status) = process.ended() {
                assert_eq!(code(status), 0, "{what}: {}", process.log());
                break;
            }
            process.kill();
            killed += 1;
            let after = list(&file, "SELECT CAST(unit * 1000000 + examined AS TEXT) FROM _whimbrel_checkpoint");
            among_rows += usize::from(!after.is_empty());
            let number = |found: &[String]| found.first().map(|n| n.parse::<u64>().unwrap());
            if let (Some(before), Some(after)) = (number(&before), number(&after)) {
                assert!(after >= before, "{what}: it began again");
            }
        }
        device.once_well();
        is_whole(&file, &[app.stop()], &what);
        assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event WHERE kind = 'completed'"), 2, "{what}");
        assert_eq!(server.stored_reports(&client_id(&file)), list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq"), "{what}: reports");
        std::fs::remove_dir_all(device.folder()).unwrap();
    }
    eprintln!("kill -9: {killed} in {passes} passes of {took:.1?}, {among_rows} among the rows (seed {seed})");
    assert!(among_rows * 2 > killed, "{among_rows} of {killed} kills came among the rows");
}

#[test]
fn a_rehearsal_on_a_copy_shows_what_a_rebuild_comes_to() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[init()]);
    let file = device.path("notes.db");
    let mut daemon = device.start();
    daemon.until_settled(SOON, 1);
    device.run(&["hold", "notes.db"]);
    server.publish("notes", &[init(), rebuilt(500)]);
    daemon.poll();
    daemon.until(SOON, "it is known", |s| (only(s)["pending"].as_u64() == Some(1)).then_some(()));
    let schema = list(&file, "SELECT name || sql FROM sqlite_schema WHERE tbl_name = 'notes' ORDER BY 1");
    let rehearse = || device.run(&["plan", "--rehearse", "--json"]);
    let outcome = rehearse();
    assert_eq!(outcome.code, 0, "{outcome}");
    let rehearsed = outcome.json()["plans"][0]["rehearsal"]["migrations"][0].clone();
    assert_eq!((&rehearsed["status"], &rehearsed["rows"]), (&"completed".into(), &ROWS.into()), "{rehearsed:#}");
    assert_eq!(list(&file, "SELECT name || sql FROM sqlite_schema WHERE tbl_name = 'notes' ORDER BY 1"), schema, "the file was only read");

    // A row that the new table does not take is named on the copy as it is in the file.
    rusqlite::Connection::open(&file).unwrap().execute("UPDATE notes SET body = NULL WHERE id = 1234", []).unwrap();
    let outcome = rehearse();
    assert_eq!(outcome.code, 4, "{outcome}");
    let failure = outcome.json()["plans"][0]["rehearsal"]["migrations"][0]["failure"].clone();
    assert!(failure["message"].as_str().is_some_and(|m| m.contains("[1234]") && m.contains("notes.body") && !m.contains("_whimbrel")), "{failure:#}");
    rusqlite::Connection::open(&file).unwrap().execute("UPDATE notes SET body = 'body 1234' WHERE id = 1234", []).unwrap();

    device.run(&["release"]).says(0, &[]);
    daemon.until_settled(SOON, 2);
    is_whole(&file, &[], "after the rehearsal");
    assert_eq!(rehearsed["fingerprint"], one::<String>(&file, "SELECT fingerprint FROM _whimbrel_event WHERE kind = 'completed' AND version = 2"));
    daemon.stop();
}
