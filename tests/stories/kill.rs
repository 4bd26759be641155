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
