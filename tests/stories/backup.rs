//! Backups, the way back to one, and rehearsals on a private copy.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rusqlite::Connection;
use serde_json::Value;
use whimbrel_tests::{
    Device, Mig, Server, content_hash,
    device::{client_id, list, one, only},
    night,
    process::Process,
    until,
};

use crate::{SOON, pair, stage};

const NOTES: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); INSERT INTO notes VALUES (1, 'one'), (2, 'two'), (3, 'three')";

/// One that loses nothing, and one that is meant to.
fn chain() -> Vec<Mig> {
    vec![Mig::up("0001_notes", NOTES), Mig::up("0002_thin_out", "DELETE FROM notes WHERE id > 1").toml("destructive = true")]
}

fn backups(device: &Device) -> Vec<Value> {
    device.json(&["backup", "list"])["backups"].as_array().unwrap().clone()
}

/// Where a device keeps the backups of its only database.
fn shelf(device: &Device) -> PathBuf {
    device.state().join("backups").join(client_id(&device.path("notes.db")))
}

/// Whether the cycle in which it learnt of so many pending migrations is over: `plan` speaks of the last whole one.
fn knows(status: &Value, pending: u32) -> Option<()> {
    (only(status)["pending"] == pending && status["daemon"]["activity"] == "idle").then_some(())
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder).into_iter().flatten().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_destructive_migration_makes_a_backup_and_a_restore_brings_the_rows_back_under_an_open_application() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let file = device.path("notes.db");
    let mut daemon = device.start();
    server.publish("notes", &chain()[..1]);
    daemon.poll();
    daemon.until_settled(SOON, 1);
    assert_eq!(backups(&device), Vec::<Value>::new(), "nothing was destructive yet");
    // The application: it has the file open all the time, with a statement prepared.
    let app = Connection::open(&file).unwrap();
    let mut count = app.prepare("SELECT count(*) FROM notes").unwrap();
    let mut rows = || count.query_row([], |row| row.get::<_, u32>(0)).unwrap();
    assert_eq!(rows(), 3);
    server.publish("notes", &chain());
    daemon.poll();
    daemon.until_settled(SOON, 2);
    assert_eq!(rows(), 1);

    let made = backups(&device);
    assert_eq!((made.len(), &made[0]["version"], &made[0]["reason"]), (1, &1.into(), &"before_apply".into()), "{made:?}");
    assert_eq!(made[0]["client_id"], client_id(&file).as_str());
    assert!(made[0]["fingerprint"].is_string(), "{made:?}");
    let copy = PathBuf::from(made[0]["path"].as_str().unwrap());
    assert_eq!(one::<u32>(&copy, "SELECT count(*) FROM notes"), 3, "a plain database that anything can read");
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&copy), mode(copy.parent().unwrap())), (0o600, 0o700));

    // Nobody but whimbrel has written: no word of consent is needed.
    device.run(&["backup", "restore", "notes.db"]).says(0, &["version 2 → 1", "whimbrel release"]);
    assert_eq!(rows(), 3, "the statement of the open application sees the rows again");
    assert_eq!(one::<String>(&file, "PRAGMA journal_mode"), "wal");
    assert_eq!(one::<String>(&file, "PRAGMA integrity_check"), "ok");
    app.execute_batch("INSERT INTO notes VALUES (4, 'four')").unwrap();
    let status = daemon.status();
    assert_eq!((&only(&status)["version"], &only(&status)["epoch"]), (&1.into(), &2.into()), "{status:#}");
    assert!(only(&status)["health"].to_string().contains("held"), "{status:#}");

    // What happened before stays told, once; then it goes on, with a backup of what is there now.
    let id = client_id(&file);
    daemon.until(SOON, "everything is reported", |s| (s["server"]["reports_unsent"] == 0).then_some(()));
    let before = server.stored_reports(&id);
    device.run(&["release"]).says(0, &[]);
    daemon.until_settled(SOON, 2);
    assert_eq!(rows(), 1);
    let after = server.stored_reports(&id);
    assert_eq!(after[..before.len()], before[..], "what was reported stays");
    let events = list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq");
    assert!(events.iter().all(|e| after.iter().filter(|r| *r == e).count() == 1), "each event once: {events:?} {after:?}");
    assert_eq!(after.len(), before.len() + 2, "0002 began and was completed again, and nothing else: {after:?}");
    assert_eq!(server.statuses(&id), [("0001_notes".to_owned(), "completed".to_owned()), ("0002_thin_out".to_owned(), "completed".to_owned())]);
    assert_eq!(backups(&device).len(), 2, "one of each epoch");
    daemon.stop();
}

#[test]
fn a_restore_is_refused_after_a_foreign_commit_and_says_what_would_be_lost() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let file = device.path("notes.db");
    server.publish("notes", &chain()[..1]);
    let mut daemon = device.start();
    daemon.until_settled(SOON, 1);
    server.publish("notes", &chain());
    daemon.poll();
    daemon.until_settled(SOON, 2);
    let app = Connection::open(&file).unwrap();
    app.execute_batch("INSERT INTO notes VALUES (5, 'five'); INSERT INTO notes VALUES (6, 'six')").unwrap();
    let before = content_hash(&file);
    device.run(&["backup", "restore", "notes.db"]).says(1, &["2 rows of notes", "--discard-newer"]);
    assert_eq!(content_hash(&file), before, "a refusal changes nothing");
    let status = daemon.status();
    assert!(!only(&status)["health"].to_string().contains("held"), "a refused restore holds nothing back: {status:#}");
    let refused = device.run(&["backup", "restore", "notes.db", "--json"]);
    assert_eq!((refused.code, &refused.json()["restored"]), (1, &false.into()), "{refused}");

    device.run(&["backup", "restore", "notes.db", "--discard-newer"]).says(0, &[]);
    assert_eq!(list(&file, "SELECT body FROM notes ORDER BY id"), ["one", "two", "three"]);
    daemon.stop();
}

#[test]
fn a_daemon_that_was_restarted_cannot_vouch_for_the_file_any_more() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &chain());
    let mut daemon = device.start();
    daemon.until_settled(SOON, 2);
    daemon.stop();
    let mut daemon = device.start();
    device.run(&["backup", "restore", "notes.db"]).says(1, &["has not had the file open", "--discard-newer"]);
    device.run(&["backup", "restore", "notes.db", "--backup", "yesterday"]).says(1, &["no backup yesterday", "whimbrel backup list"]);
    device.run(&["backup", "restore", "notes.db", "--discard-newer"]).says(0, &[]);
    // Both ran in one, and the backup is of what was before.
    daemon.until_at(SOON, 0);
    daemon.stop();
}

#[test]
fn a_backup_that_is_killed_half_way_leaves_only_a_part_that_is_swept() {
    let stage = stage();
    let many = "CREATE TABLE big(n INTEGER PRIMARY KEY, pad); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 40000) INSERT INTO big SELECT n, zeroblob(4000) FROM c";
    let (server, device) = pair(&stage, many);
    server.plan_nothing("notes");
    let mut daemon = device.start();
    daemon.until(SOON, "it was looked at", |s| only(s)["client_id"].as_str().map(|_| ()));
    let shelf = shelf(&device);
    let mut create = Process::start(device.command(&["backup", "create"]), device.folder(), "create");
    until(SOON, "the copy has begun", || names(&shelf).contains(&"next.part".to_owned()).then_some(()));
    daemon.kill();
    assert_eq!(create.wait(SOON).code(), Some(69), "{}", create.log());
    assert_eq!(names(&shelf), ["next.part"], "half a backup never has a backup's name");

    // The order was kept. It is carried out by the next daemon, which sweeps first.
    let mut daemon = device.start();
    daemon.until(SOON, "the kept order is carried out", |_| (backups(&device).len() == 1).then_some(()));
    assert_eq!(names(&shelf).len(), 1, "{:?}", names(&shelf));
    assert_eq!(one::<u32>(&shelf.join(&names(&shelf)[0]), "SELECT count(*) FROM big"), 40_000);
    daemon.stop();
}

#[test]
fn the_newest_backups_are_kept_where_the_configuration_says() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).table("[backup]\nkeep = 2\ndir = \"elsewhere\"").database("notes.db", "notes");
    let file = device.make("notes.db", NOTES);
    device.enroll(&server.token("notes"));
    server.plan_nothing("notes");
    let mut daemon = device.start();
    daemon.until(SOON, "it was looked at", |s| only(s)["client_id"].as_str().map(|_| ()));
    let mut ids = Vec::new();
    for n in 0..4 {
        Connection::open(&file).unwrap().execute("INSERT INTO notes(body) VALUES ('more')", []).unwrap();
        let made = device.json(&["backup", "create", "notes.db"])["backups"].clone();
        assert_eq!(made.as_array().map(Vec::len), Some(1), "backup {n}: {made}");
        assert_eq!((&made[0]["reason"], &made[0]["version"]), (&"person".into(), &0.into()));
        ids.insert(0, made[0]["backup_id"].as_str().unwrap().to_owned());
    }
    let kept = backups(&device);
    assert_eq!(kept.iter().map(|b| b["backup_id"].as_str().unwrap()).collect::<Vec<_>>(), &ids[..2]);
    let shelf = device.path("elsewhere").join(client_id(&file));
    assert_eq!(names(&shelf).len(), 2);
    // An older one than the newest cannot be vouched for, whoever wrote.
    device.run(&["backup", "restore", "notes.db", "--backup", &ids[1]]).says(1, &["--discard-newer"]);
    device.run(&["backup", "restore", "notes.db", "--backup", &ids[1], "--discard-newer"]).says(0, &[]);
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM notes"), 6);
    daemon.stop();
}

#[test]
fn a_rehearsal_says_what_the_real_run_then_does_and_leaves_the_file_alone() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let file = device.path("notes.db");
    server.plan_nothing("notes");
    let rows = "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000) INSERT INTO notes SELECT n, 'note ' || n FROM c";
    let pending = [
        Mig::up("0000_notes", rows),
        Mig::up("0001_slug", "CREATE TABLE slug(id INTEGER PRIMARY KEY, slug TEXT); INSERT INTO slug SELECT id, lower(body) FROM notes"),
        Mig::up("0002_fill", "UPDATE slug SET slug = slug || '!' WHERE id % 2"),
        Mig::up("0003_index", "CREATE INDEX slug_slug ON slug(slug)"),
    ];
    let mut daemon = device.start();
    daemon.until(SOON, "it was looked at", |s| only(s)["client_id"].as_str().map(|_| ()));
    device.run(&["hold", "notes.db"]);
    server.publish("notes", &pending);
    server.plan_all("notes");
    daemon.poll();
    daemon.until(SOON, "they are known", |s| knows(s, 4));
    let before = content_hash(&file);
    // However it is held: a rehearsal says how, not when.
    let plan = device.json(&["plan", "--rehearse"]);
    assert_eq!(content_hash(&file), before);
    assert!(!device.state().join("rehearsal").exists(), "the copy is gone");
    let rehearsed = plan["plans"][0]["rehearsal"]["migrations"].as_array().unwrap_or_else(|| panic!("{plan:#}")).clone();
    assert_eq!(rehearsed.iter().map(|m| m["rows"].as_u64().unwrap()).collect::<Vec<_>>(), [20_000, 20_000, 10_000, 0], "{plan:#}");
    assert!(rehearsed.iter().all(|m| m["status"] == "completed"), "{plan:#}");

    device.run(&["release"]).says(0, &[]);
    daemon.until_settled(SOON, 4);
    let real: String = one(&file, "SELECT fingerprint FROM _whimbrel_event WHERE kind = 'completed' AND version = 4");
    assert_eq!(rehearsed[3]["fingerprint"], real.as_str());
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM slug"), 20_000);
    let took = |events: &Value| events["took_ms"].as_u64().unwrap_or_default();
    let (there, really) = (rehearsed.iter().map(took).sum::<u64>(), one::<i64>(&file, "SELECT sum(took_ms) FROM _whimbrel_event").unsigned_abs());
    eprintln!("the rehearsal took {there} ms, the run {really} ms");
    // By day the machine is busy with other tests.
    let most = if night() { 2 } else { 8 };
    assert!(there <= really * most + 20 && really <= there * most + 20, "{there} ms on the copy, {really} ms in the file");

    // What fails on the copy fails in the file, with the same words: here on a row of the application's own.
    Connection::open(&file).unwrap().execute("INSERT INTO slug VALUES (30000, 'own')", []).unwrap();
    let broken =
        [pending.as_slice(), &[Mig::up("0004_twice", "INSERT INTO slug VALUES (30000, 'again')"), Mig::up("0005_never", "CREATE TABLE never(x)")]]
            .concat();
    device.run(&["hold", "notes.db"]);
    server.publish("notes", &broken);
    daemon.poll();
    daemon.until(SOON, "they are known", |s| knows(s, 2));
    let outcome = device.run(&["plan", "--rehearse", "--json"]);
    assert_eq!(outcome.code, 4, "{outcome}");
    let failed = outcome.json()["plans"][0]["rehearsal"]["migrations"].clone();
    assert_eq!((failed.as_array().map(Vec::len), &failed[0]["status"]), (Some(1), &"failed".into()), "{outcome}");
    device.run(&["plan", "--rehearse"]).says(4, &["0004_twice", "failed", "remedy"]);
    device.run(&["release"]);
    daemon.process.expect_error("0004_twice");
    daemon.until(SOON, "it failed for real", |s| (only(s)["status"] == "failed").then_some(()));
    assert_eq!(only(&daemon.status())["failure"]["failure"]["message"], failed[0]["failure"]["message"]);
    daemon.stop();
}
