//! The application comes first: it writes on, and is waited for.

use std::time::{Duration, Instant};

use whimbrel_tests::{
    App, Device, Mig, Server, chain,
    device::{one, only},
    night, until,
};

use crate::{SOON, pair, stage};

/// How long an application holds something in the ordinary run, and at night.
fn hold() -> Duration {
    Duration::from_secs(if night() { 30 } else { 6 })
}

/// A chain that rebuilds and changes tables around the one the application writes.
fn around() -> Vec<Mig> {
    let mut chain = chain::fifty(100_000);
    chain.push(Mig::up("0051_app_table", "ALTER TABLE app_log ADD COLUMN extra TEXT; CREATE INDEX app_log_body ON app_log(body);"));
    chain.push(Mig::up(
        "0052_rebuild_app_table",
        "CREATE TABLE app_log_new(id INTEGER PRIMARY KEY, body TEXT NOT NULL, extra TEXT); INSERT INTO app_log_new SELECT id, body, extra FROM app_log; DROP TABLE app_log; ALTER TABLE app_log_new RENAME TO app_log;",
    ));
    chain
}

fn busy_app(busy_ms: u32) -> (serde_json::Value, u32, serde_json::Value) {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "CREATE TABLE app_log(id INTEGER PRIMARY KEY, body TEXT)");
    device.enroll(&server.token("notes"));
    server.publish_unchecked("notes", &around());
    let app = App::writing(&file, "app_log", 5, busy_ms);
    let outcome = device.run(&["run", "--once", "--json"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let count = app.stop();
    (count, one(&file, "SELECT count(*) FROM app_log"), one::<u32>(&file, "SELECT max(took_ms) FROM _whimbrel_event").into())
}

#[test]
fn an_application_that_writes_every_5_ms_sees_no_error_through_the_whole_chain() {
    let (count, rows, hold_ms) = busy_app(5_000);
    eprintln!("busy timeout 5 s: {count}; our longest migration {hold_ms} ms");
    assert_eq!((&count["busy"], count["errors"].as_array().map(Vec::len)), (&0.into(), Some(0)), "{count}");
    assert!(count["done"].as_u64().unwrap() > 20, "it did not write beside the chain: {count}");
    assert_eq!(count["done"], rows, "rows the application wrote");
    // SQLite's own waiting sleeps and has no queue: without a gap between our transactions it never gets the lock, and a
    // chain that is long enough outlasts any timeout. 100 ms is its longest sleep, and how long a group may hold.
    let (longest_ms, hold_ms) = (count["max_us"].as_u64().unwrap() / 1000, hold_ms.as_u64().unwrap().max(100));
    assert!(longest_ms <= 2 * hold_ms + 300, "one write waited {longest_ms} ms, and our longest hold is {hold_ms} ms: it was starved");
}

#[test]
fn an_application_without_patience_is_told_busy_only_while_we_hold_the_lock() {
    let (count, rows, hold_ms) = busy_app(0);
    let longest_ms = count["longest_busy_us"].as_u64().unwrap() / 1000;
    eprintln!(
        "busy timeout 0: {} BUSY of {}, refused for {longest_ms} ms at most; our longest migration {hold_ms} ms; {count}",
        count["busy"], count["done"]
    );
    assert_eq!(count["done"], rows);
    assert!(count["errors"].as_array().unwrap().iter().all(|e| e.as_str().unwrap().contains("locked")), "{count}");
    assert!(longest_ms <= 2_000, "the application was refused for {longest_ms} ms");
}

#[test]
fn a_write_lock_that_the_application_holds_is_waited_out() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x)");
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE a(x)")]);
    // Known before, so that it is the migration that waits.
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 0 }));
    device.once_well();
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 1 }));
    let app = App::holding_the_lock(&device.path("notes.db"), hold());
    let begun = Instant::now();
    let mut daemon = device.start();
    daemon.until(SOON, "it shows that it waits for the application", |s| {
        let database = only(s);
        (database["waiting_ms"].as_u64().is_some_and(|ms| ms > 500) || database["now"]["phase"] == "waiting").then_some(())
    });
    app.says("released", hold() + SOON);
    let held = begun.elapsed();
    daemon.until_settled(SOON, 1);
    assert!(held >= hold().mul_f64(0.9) && hold() >= Duration::from_secs(6), "longer than any busy timeout of a tool: {held:?}");
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM _whimbrel_event WHERE kind = 'failed'"), 0);
    assert!(!daemon.process.log().contains("ERROR"));
}

#[test]
fn a_reader_in_rollback_journal_mode_is_waited_out_and_new_readers_are_let_in() {
    let stage = stage();
    let server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes");
    let file = device.make_in("notes.db", "delete", "CREATE TABLE notes(x); INSERT INTO notes VALUES (1)");
    device.enroll(&server.token("notes"));
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE a(x); INSERT INTO a VALUES (1)")]);
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 0 }));
    device.once_well();
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 1 }));
    let reader = App::holding_a_read(&file, hold());
    let begun = Instant::now();
    let newcomers = App::reading(&file, 20, 0);
    let mut daemon = device.start();
    reader.says("released", hold() + SOON);
    assert!(begun.elapsed() >= hold().mul_f64(0.9));
    daemon.until_settled(SOON, 1);
    let count = newcomers.stop();
    let longest_ms = count["longest_busy_us"].as_u64().unwrap() / 1000;
    eprintln!("new readers beside a waiting COMMIT, busy timeout 0: {} read, {} refused, for {longest_ms} ms at most", count["done"], count["busy"]);
    assert!(longest_ms <= 1_500, "new readers were shut out for {longest_ms} ms: {count}");
    assert!(count["done"].as_u64() > count["busy"].as_u64(), "{count}");
    assert_eq!(one::<String>(&file, "PRAGMA journal_mode"), "delete", "the journal mode is the application's");
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM a"), 1);
}

#[test]
fn a_wait_for_the_application_is_cancelled_at_once_when_the_daemon_stops() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x)");
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE a(x)")]);
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 0 }));
    device.once_well();
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 1 }));
    let app = App::holding_the_lock(&device.path("notes.db"), Duration::from_secs(3600));
    let mut daemon = device.start();
    daemon.until(SOON, "it waits for the application", |s| (only(s)["now"]["phase"] == "waiting").then_some(()));
    let begun = Instant::now();
    daemon.stop();
    assert!(begun.elapsed() < Duration::from_secs(7), "it took {:?} to stop", begun.elapsed());
    drop(app);
    device.once_well();
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM a"), 0);
    until(SOON, "nothing is left", || (one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM _whimbrel_intent") == 0).then_some(()));
}
