//! Exactly once, whatever kills the daemon, and when.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::Connection;
use whimbrel_tests::{
    Device, Mig, Server, chain, content_hash,
    device::{client_id, list, one},
    process::code,
    sample, until, wait,
};

use crate::{SOON, stage};

/// Books in the chain's data: large enough that a whole run takes more than a second.
const ROWS: u32 = 30_000;

#[test]
fn fifty_migrations_end_the_same_however_often_the_daemon_is_killed() {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("chain", &chain::fifty(ROWS));
    let token = server.token("chain");
    let device = |name: &str, grouping: bool| {
        let device = Device::new(stage.path(), name, &server.url())
            .database("app.db", "chain")
            .table(&format!("[apply]\nmax_attempts = 0\ngrouping = {grouping}"));
        device.make("app.db", "");
        device.enroll(&token);
        device
    };

    let whole = device("uninterrupted", false);
    let begun = Instant::now();
    whole.once_well();
    let took = begun.elapsed();
    let wanted = content_hash(&whole.path("app.db"));
    assert_eq!(one::<u32>(&whole.path("app.db"), "SELECT count(*) FROM step WHERE version > 0"), chain::LENGTH - 2);

    let (kills, inside_wanted) = (sample(25, 300), sample(20, 250));
    let seed = std::env::var("WHIMBREL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut before, mut inside, mut after, mut passes) = (0, 0, 0, 0);
    while before + inside + after < kills || inside < inside_wanted {
        passes += 1;
        let device = device(&format!("pass{passes}"), passes % 2 == 0);
        let file = device.path("app.db");
        loop {
            // A third of a whole run at most, so that a pass sees several kills.
            let moment = took.mul_f64(dice.f64() * 0.35);
            let mut process = device.once_in_background();
            wait::moment(moment);
            if let Some(status) = process.ended() {
                assert_eq!(code(status), 0, "seed {seed}: {}", process.log());
                break;
            }
            process.kill();
            match phase(&file) {
                Phase::Before => before += 1,
                Phase::Inside => inside += 1,
                Phase::After => after += 1,
            }
        }
        device.once_well();
        assert_eq!(content_hash(&file), wanted, "seed {seed}, pass {passes}: the content differs from the uninterrupted run's");
        assert_nothing_stuck_and_nothing_twice(&file);
        let id = client_id(&file);
        assert_eq!(
            server.stored_reports(&id),
            list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq"),
            "seed {seed}, pass {passes}: reports"
        );
        assert!(server.statuses(&id).iter().all(|(_, status)| status == "completed"), "seed {seed}, pass {passes}");
        std::fs::remove_dir_all(device.folder()).unwrap();
    }
    let total = before + inside + after;
    eprintln!(
        "kill -9: {total} in {passes} passes of {took:.1?}: {before} before the first started, {inside} between it and the last completed, {after} after (seed {seed})"
    );
}

enum Phase {
    Before,
    Inside,
    After,
}

/// Where the chain stood when the daemon died.
fn phase(file: &Path) -> Phase {
    let connection = Connection::open(file).unwrap();
    connection.busy_timeout(SOON).unwrap();
    let count = |kind: &str| connection.query_row("SELECT count(*) FROM _whimbrel_event WHERE kind = ?1", [kind], |row| row.get::<_, u32>(0));
    match (count("started"), count("completed")) {
        (Ok(1..), Ok(chain::LENGTH)) => Phase::After,
        (Ok(1..), Ok(_)) => Phase::Inside,
        (Ok(0) | Err(_), _) => Phase::Before,
        (_, Err(error)) => panic!("{error}"),
    }
}

fn assert_nothing_stuck_and_nothing_twice(file: &Path) {
    let count = |sql: &str| one::<u32>(file, sql);
    assert_eq!(count("SELECT count(*) FROM _whimbrel_intent"), 0);
    assert_eq!(count("SELECT count(*) FROM _whimbrel_crash"), 0);
    assert_eq!(count("SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), chain::LENGTH);
    assert_eq!(count("SELECT count(*) FROM _whimbrel_event WHERE kind = 'completed'"), chain::LENGTH);
    assert_eq!(count("SELECT count(DISTINCT version) FROM _whimbrel_event WHERE kind = 'completed'"), chain::LENGTH);
    assert_eq!(count("SELECT count(*) FROM _whimbrel_event WHERE kind NOT IN ('started', 'crashed', 'completed')"), 0);
}

/// A migration that runs for seconds.
fn long(number: u32, table: &str) -> Mig {
    let sql = format!(
        "CREATE TABLE {table}(n); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 6000000) INSERT INTO {table} SELECT max(n) FROM c;"
    );
    Mig::up(&format!("{number:04}_{table}"), sql)
}

/// Starts a cycle, and kills it while it runs the migration at `version`.
fn kill_inside(device: &Device, version: u32) {
    let file = device.path("notes.db");
    let events =
        || Connection::open(&file).ok()?.query_row("SELECT count(*) FROM _whimbrel_event WHERE kind = 'started'", [], |r| r.get::<_, u32>(0)).ok();
    let before = events().unwrap_or(0);
    let mut process = device.once_in_background();
    until(SOON, "the migration begins", || {
        let next = Connection::open(&file).ok()?.query_row("SELECT next_version FROM _whimbrel_intent", [], |r| r.get::<_, u32>(0)).ok()?;
        assert!(process.ended().is_none(), "it ended before it could be killed: {}", process.log());
        (next == version && events()? > before).then_some(())
    });
    process.kill();
}

#[test]
fn after_three_crashes_in_a_row_a_migration_waits_for_a_person() {
    let stage = stage();
    let (server, device) = crate::pair(&stage, "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)");
    server.publish("notes", &[long(1, "first"), Mig::up("0002_second", "CREATE TABLE after(x)")]);
    for _ in 0..3 {
        kill_inside(&device, 1);
    }
    let file = device.path("notes.db");
    device.once().says(4, &["0001_first", "3 times", "whimbrel retry"]);
    // It is not tried again by itself.
    let begun = Instant::now();
    device.once().says(4, &["whimbrel retry"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event WHERE kind = 'crashed'"), 3);
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM sqlite_schema WHERE name IN ('first', 'after')"), 0);
    let id = client_id(&file);
    assert_eq!(server.statuses(&id)[0], ("0001_first".to_owned(), "failed".to_owned()));

    let mut daemon = device.start();
    daemon.process.expect_error("died 3 times");
    assert_eq!(device.run(&["retry"]).code, 0);
    daemon.until_settled(SOON, 2);
    assert!(server.statuses(&id).iter().all(|(_, s)| s == "completed"));
}

#[test]
fn crashes_count_only_in_a_row_without_progress() {
    let stage = stage();
    let (server, device) = crate::pair(&stage, "CREATE TABLE notes(id INTEGER PRIMARY KEY, body TEXT)");
    server.publish("notes", &[long(1, "first"), long(2, "second")]);
    for version in [1, 1, 2, 2] {
        kill_inside_reaching(&device, version);
    }
    device.once_well();
    let file = device.path("notes.db");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event WHERE kind = 'crashed'"), 4);
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), 2);
}

/// As [`kill_inside`], letting what comes before `version` complete.
fn kill_inside_reaching(device: &Device, version: u32) {
    let file = device.path("notes.db");
    let starts =
        || Connection::open(&file).ok()?.query_row("SELECT count(*) FROM _whimbrel_event WHERE kind = 'started'", [], |r| r.get::<_, u32>(0)).ok();
    let before = starts().unwrap_or(0);
    let mut process = device.once_in_background();
    until(SOON, "the migration begins", || {
        let next = Connection::open(&file).ok()?.query_row("SELECT next_version FROM _whimbrel_intent", [], |r| r.get::<_, u32>(0)).ok()?;
        (next == version && starts()? > before).then_some(())
    });
    assert!(process.ended().is_none(), "{}", process.log());
    process.kill();
}

/// How many rows a backfill may go on for before it is killed among them.
const ROWS_A_KILL: i64 = 12_000;

/// An online migration whose backfill takes some seconds, with an index that only whole rows allow.
fn slugs() -> Vec<Mig> {
    let rows = 60_000;
    vec![
        Mig::up(
            "0001_init",
            format!(
                "CREATE TABLE notes(id INTEGER PRIMARY KEY, title TEXT NOT NULL);
                 WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {rows}) INSERT INTO notes(title) SELECT 'Note Number ' || i FROM n;
                 CREATE TABLE log(id INTEGER); CREATE TABLE cards(id INTEGER PRIMARY KEY, face TEXT);"
            ),
        ),
        Mig::up("0002_slugs", "ALTER TABLE notes ADD COLUMN slug TEXT; CREATE TRIGGER once AFTER UPDATE OF slug ON notes BEGIN INSERT INTO log VALUES (NEW.id); END;")
            .toml(
                "mode = \"online\"\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"notes\"\nset = \"slug = lower(replace(title, ' ', '-'))\"\nwhere = \"slug IS NULL\"\nbatch = 200\n                 [[step]]\nload = \"cards.ndjson\"\ninto = \"cards\"\nkey = [\"id\"]\nbatch = 100\n[[step]]\nsql = \"index.sql\"\n[[step]]\nverify = \"verify.sql\"\n",
            )
            .file("cards.ndjson", (1..=3_000).map(|n| format!("{{\"id\": {n}, \"face\": \"card {n}\"}}\n")).collect::<String>())
            .file("index.sql", "CREATE UNIQUE INDEX notes_slug ON notes(slug);")
            .file("verify.sql", format!("SELECT count(*) = {rows} FROM log;")),
    ]
}

#[test]
fn a_backfill_that_is_killed_goes_on_where_it_stood() {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("slugs", &slugs());
    let token = server.token("slugs");
    let device = |name: &str| {
        let device = Device::new(stage.path(), name, &server.url()).database("app.db", "slugs").table("[apply]\nmax_attempts = 0");
        device.make("app.db", "");
        device.enroll(&token);
        device
    };
    let whole = device("uninterrupted");
    let begun = Instant::now();
    whole.once_well();
    let (took, wanted) = (begun.elapsed(), content_hash(&whole.path("app.db")));

    let kills = sample(15, 200);
    let seed = std::env::var("WHIMBREL_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let mut dice = fastrand::Rng::with_seed(seed);
    let (mut killed, mut among_rows, mut passes) = (0, 0, 0);
    let mut longest_resume = Duration::ZERO;
    while killed < kills {
        passes += 1;
        let device = device(&format!("pass{passes}"));
        let file = device.path("app.db");
        let examined = || one_if_there(&file, "SELECT unit * 1000000 + examined FROM _whimbrel_checkpoint");
        loop {
            let (before, begun) = (examined(), Instant::now());
            let mut process = device.once_in_background();
            if let Some(before) = before {
                // It goes on within a second, from where it stood.
                until(SOON, "the walk goes on", || (examined().is_none_or(|now| now > before) || process.ended().is_some()).then_some(()));
                longest_resume = longest_resume.max(begun.elapsed());
                assert!(examined().is_none_or(|now| now >= before), "seed {seed}: it began again");
            }
            if dice.bool() {
                // Anywhere, by the clock.
                wait::moment(took.mul_f64(dice.f64() * 0.3));
            } else {
                // Among the rows, by how far it came, however fast the machine is.
                let far = before.unwrap_or(0) + dice.i64(0..ROWS_A_KILL);
                until(SOON, "it comes so far", || (examined().is_some_and(|now| now >= far) || process.ended().is_some()).then_some(()));
            }
            if let Some(status) = process.ended() {
                assert_eq!(code(status), 0, "seed {seed}: {}", process.log());
                break;
            }
            process.kill();
            killed += 1;
            among_rows += usize::from(examined().is_some());
        }
        device.once_well();
        // The log of the trigger shows a row that was changed twice.
        assert_eq!(content_hash(&file), wanted, "seed {seed}, pass {passes}: the content differs from the uninterrupted run's");
        assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event WHERE kind = 'completed'"), 2);
        let id = client_id(&file);
        assert_eq!(
            server.stored_reports(&id),
            list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq"),
            "seed {seed}, pass {passes}: reports"
        );
        std::fs::remove_dir_all(device.folder()).unwrap();
    }
    eprintln!(
        "kill -9: {killed} in {passes} passes of {took:.1?}, {among_rows} among the rows; going on took {longest_resume:.2?} at most (seed {seed})"
    );
    assert!(among_rows * 2 > killed, "{among_rows} of {killed} kills came among the rows");
}

/// A number of a file that may not have the table yet.
fn one_if_there(file: &Path, sql: &str) -> Option<i64> {
    let connection = Connection::open(file).ok()?;
    connection.busy_timeout(SOON).ok()?;
    connection.query_row(sql, [], |row| row.get(0)).ok()
}
