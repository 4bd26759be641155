//! What a person at the device sees and asks for.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rusqlite::Connection;
use serde_json::{Value, json};
use whimbrel_tests::{
    Device, Mig, Server, content_hash,
    device::{client_id, list, one, only},
    process::Process,
    until,
};

use crate::{SOON, pair, stage};

/// A migration of some seconds.
fn long(name: &str, table: &str) -> Mig {
    let sql = format!(
        "CREATE TABLE {table}(n); WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 8000000) INSERT INTO {table} SELECT max(n) FROM c;"
    );
    Mig::up(name, sql)
}

fn two() -> Vec<Mig> {
    vec![
        Mig::up("0001_init", "CREATE TABLE notes2(id INTEGER PRIMARY KEY, body TEXT);").down("DROP TABLE notes2;"),
        Mig::up("0002_more", "ALTER TABLE notes2 ADD COLUMN extra TEXT;").down("ALTER TABLE notes2 DROP COLUMN extra;"),
    ]
}

#[test]
fn status_answers_while_a_long_migration_runs_and_apply_waits_for_it() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x)");
    let mut daemon = device.start();
    server.publish("notes", &[long("0001_long", "big"), Mig::up("0002_after", "CREATE TABLE after(x)")]);
    let mut apply = Process::start(device.command(&["apply"]), device.folder(), "apply");
    let mut slowest = Duration::ZERO;
    let mut looks = 0;
    daemon.until(SOON, "it has been seen running, and is done", |s| {
        let running = only(s)["now"]["phase"] == "running";
        if running {
            assert_eq!(only(s)["now"]["name"], "0001_long", "{s:#}");
            let begun = Instant::now();
            let outcome = device.run(&["status"]);
            slowest = slowest.max(begun.elapsed());
            assert_eq!(outcome.code, 0, "{outcome}");
            looks += 1;
        }
        (looks > 3).then_some(())
    });
    assert!(apply.ended().is_none(), "apply did not wait:\n{}", apply.log());
    assert_eq!(apply.wait(SOON).code(), Some(0), "{}", apply.log());
    daemon.until_settled(SOON, 2);
    assert!(apply.log().contains("0001_long"), "apply showed no progress: {}", apply.log());
    eprintln!("status during a migration: {looks} looks, the slowest {slowest:.0?}");
    assert!(slowest < Duration::from_secs(1), "status took {slowest:?}");
}

#[test]
fn an_order_that_is_not_waited_for_has_an_id_and_survives_a_restart() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    device.once_well_or_waiting();
    server.publish("notes", &two());
    let daemon = device.start();
    let kept = device.json(&["apply", "--no-wait"]);
    let id = kept["request_id"].as_str().unwrap().to_owned();
    daemon.kill();
    let mut daemon = device.start();
    let outcome = device.run(&["wait", "--request", &id]);
    assert_eq!(outcome.code, 0, "{outcome}");
    daemon.until_settled(SOON, 2);
    assert_eq!(device.run(&["wait", "notes.db", "--version", "2", "--timeout", "10s"]).code, 0);
    assert_eq!(device.run(&["wait", "notes.db", "--version", "9", "--timeout", "0s"]).code, 3);
}

#[test]
fn a_held_database_stands_still_until_it_is_released() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let mut daemon = device.start();
    daemon.until(SOON, "the first exchange", |s| (s["server"]["state"] == "online").then_some(()));
    let held = device.run(&["hold"]);
    assert!([0, 3].contains(&held.code), "{held}");
    server.publish("notes", &two());
    device.run(&["apply"]).says(3, &["holds this database", "whimbrel release"]);
    assert_eq!(only(&daemon.status())["version"], 0);
    let released = device.run(&["release"]);
    assert_eq!(released.code, 0, "{released}");
    daemon.until_settled(SOON, 2);
    // A hold with an end.
    let until_past = device.run(&["hold", "--for", "1s"]);
    assert!([0, 3].contains(&until_past.code), "{until_past}");
    server.publish("notes", &[two(), vec![Mig::up("0003_third", "CREATE TABLE third(x)")]].concat());
    until(SOON, "the hold has ended by itself", || (device.run(&["apply"]).code == 0).then_some(()));
    daemon.until_settled(SOON, 3);
}

#[test]
fn a_person_reverts_and_the_database_stays_there_until_released() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &two());
    let mut daemon = device.start();
    daemon.until_settled(SOON, 2);
    let file = device.path("notes.db");
    assert_eq!(device.run(&["revert", "0002_more"]).code, 2, "a revert without --yes and without a terminal");
    let outcome = device.run(&["revert", "0002_more", "--yes"]);
    assert!([0, 3].contains(&outcome.code), "{outcome}");
    daemon.until_at(SOON, 1);
    assert_eq!(list(&file, "SELECT name FROM pragma_table_info('notes2') ORDER BY cid"), ["id", "body"]);
    // The plan would have it again; the person's word holds.
    daemon.poll();
    daemon.until(SOON, "it is held", |s| only(s)["health"].to_string().contains("held").then_some(()));
    assert_eq!(only(&daemon.status())["version"], 1);
    let id = client_id(&file);
    until(SOON, "the server knows", || server.statuses(&id).iter().any(|(n, s)| n == "0002_more" && s == "reverted").then_some(()));
    let history = device.json(&["history"]);
    let events = history["events"].as_array().unwrap();
    assert_eq!((&events[0]["kind"], &events[0]["by"]), (&json!("reverted"), &json!("person")), "newest first, with who asked: {history:#}");
    assert_eq!(events.last().unwrap()["by"], "plan", "{history:#}");
    device.run(&["release"]);
    daemon.until_settled(SOON, 2);
}

#[test]
fn a_migration_without_a_down_step_cannot_be_reverted_and_says_so() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[Mig::up("0001_one_way", "CREATE TABLE one(x)")]);
    let mut daemon = device.start();
    daemon.until_settled(SOON, 1);
    daemon.process.expect_error("0001_one_way");
    let outcome = device.run(&["revert", "0001_one_way", "--yes"]);
    outcome.says(4, &["0001_one_way", "no down"]);
    assert_eq!(only(&daemon.status())["version"], 1);
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM one"), 0);
}

#[test]
fn a_closed_window_is_waited_for_and_a_person_may_go_through_it() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    // The first second of the year.
    let device = device.table("[schedule]\npoll = \"0 0 0 1 1 *\"\nwindow = { open = \"0 0 0 1 1 *\", for = \"1s\" }");
    server.publish("notes", &two());
    device.once().says(3, &["window", "whimbrel apply"]);
    assert_eq!(one::<u32>(&device.path("notes.db"), "SELECT count(*) FROM _whimbrel_event"), 0);
    let mut daemon = device.start();
    daemon.until(SOON, "it waits for the window", |s| only(s)["health"].to_string().contains("window").then_some(()));
    let outcome = device.run(&["apply"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    daemon.until_settled(SOON, 2);
}

#[test]
fn a_migration_waits_for_the_application_that_can_live_with_it() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[two().remove(0), Mig::up("0002_needs", "CREATE TABLE two(x)").toml("min_app = \"2.3.0\"\n")]);
    let mut daemon = device.start();
    daemon.until(SOON, "the version is unknown", |s| {
        (only(s)["version"] == 1 && only(s)["health"].to_string().contains("app_version_unknown")).then_some(())
    });
    device.run(&["app", "set-version", "notes", "2.2.9"]);
    daemon.until(SOON, "the version is too old", |s| only(s)["health"].to_string().contains("min_app").then_some(()));
    device.once_is_waiting(&["apply"], &["2.3.0", "2.2.9"]);
    device.run(&["app", "set-version", "notes", "2.3.0"]);
    daemon.until_settled(SOON, 2);
    daemon.stop();
    // From a file of the application's.
    fs::write(device.path("VERSION"), "3.1\n").unwrap();
    let other = Device::new(stage.path(), "other", &server.url()).database_with("notes.db", "notes", "app_version = { file = \"VERSION\" }");
    other.make("notes.db", "");
    fs::write(other.path("VERSION"), "3.1\n").unwrap();
    other.enroll(&server.token("notes"));
    other.once_well();
    assert_eq!(one::<u32>(&other.path("notes.db"), "SELECT count(*) FROM two"), 0);
}

#[test]
fn a_plan_shows_what_would_happen_and_writes_nothing() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x); INSERT INTO notes VALUES (1), (2), (3);");
    server.plan_nothing("notes");
    device.once_well_or_waiting();
    let mut daemon = device.start();
    device.run(&["hold"]);
    // Allowed first: who sees them then may also have them.
    server.plan_all("notes");
    server.publish("notes", &two());
    daemon.poll();
    daemon.until(SOON, "it is accepted", |s| (only(s)["pending"] == 2).then_some(()));
    let file = device.path("notes.db");
    let (before, version): (_, i64) = (content_hash(&file), one(&file, "PRAGMA data_version"));
    let plan = device.json(&["plan"]);
    let steps = plan["plans"][0]["steps"].as_array().unwrap_or_else(|| panic!("{plan:#}"));
    assert_eq!(steps.len(), 2, "{plan:#}");
    assert!(plan.to_string().contains("ADD COLUMN extra") && plan.to_string().contains("held"), "{plan:#}");
    assert_eq!((content_hash(&file), one::<i64>(&file, "PRAGMA data_version")), (before, version));
    assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_event"), 0);
}

#[test]
fn a_plan_that_goes_down_reverts_newest_first_and_a_plan_that_goes_up_applies_again() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &two());
    device.once_well();
    let file = device.path("notes.db");
    server.plan("notes", &json!({ "order": "revert_down_to", "version": 0 }));
    device.once_well();
    assert_eq!(list(&file, "SELECT name FROM sqlite_schema WHERE name = 'notes2'").len(), 0);
    assert_eq!(list(&file, "SELECT migration FROM _whimbrel_event WHERE kind = 'reverted' ORDER BY seq"), ["0002_more", "0001_init"]);
    server.plan_all("notes");
    device.once_well();
    assert_eq!(one::<u32>(&file, "SELECT count(extra) FROM notes2"), 0);
    let id = client_id(&file);
    assert!(server.statuses(&id).iter().all(|(_, s)| s == "completed"));
    assert_eq!(server.stored_reports(&id), list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq"));
}

#[test]
fn a_failure_is_cleared_by_retry_when_its_cause_is_gone() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE theirs(x UNIQUE); INSERT INTO theirs VALUES (1)");
    let told = device.path("told");
    let hook = device.path("hook");
    fs::write(&hook, format!("#!/bin/sh\nenv | grep ^WHIMBREL_ > {}\n", told.display())).unwrap();
    fs::set_permissions(&hook, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let device = device.table("[notify]\ncommand = \"hook\"");
    server.publish_unchecked(
        "notes",
        &[Mig::up("0001_collides", "CREATE TABLE half(x);\nINSERT INTO theirs VALUES (1);").verify("SELECT count(*) = 2 FROM theirs;")],
    );
    let mut daemon = device.start();
    daemon.process.expect_error("0001_collides");
    daemon.until(SOON, "it has failed", |s| (only(s)["status"] == "failed").then_some(()));
    let failure = only(&daemon.status())["failure"].clone();
    assert_eq!(failure["migration"], "0001_collides");
    let message = failure["failure"]["message"].as_str().unwrap();
    assert!(message.contains("up.sql:2:1") && message.contains("UNIQUE"), "{message}");
    until(SOON, "the hook was told", || fs::read_to_string(&told).ok().filter(|t| t.contains("notes.db") && t.contains("WHIMBREL_REMEDY")));
    device.run(&["retry"]).says(4, &["0001_collides"]);
    let app = Connection::open(device.path("notes.db")).unwrap();
    app.execute_batch("UPDATE theirs SET x = 2").unwrap();
    let outcome = device.run(&["retry"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    daemon.until_settled(SOON, 1);
    // What the application may read of it.
    assert_eq!(list(&device.path("notes.db"), "SELECT name || ' ' || status FROM _whimbrel_status"), ["0001_collides completed"]);
    assert_eq!(list(&device.path("notes.db"), "SELECT kind FROM _whimbrel_history")[0], "completed");
}

#[test]
fn watch_shows_what_happens_as_it_happens() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let mut daemon = device.start();
    daemon.until(SOON, "the first exchange", |s| (s["server"]["state"] == "online").then_some(()));
    let watch = Process::start(device.command(&["watch", "--json"]), device.folder(), "watch");
    until(SOON, "it watches", || (!watch.out().is_empty()).then_some(()));
    server.publish("notes", &two());
    daemon.poll();
    daemon.until_settled(SOON, 2);
    until(SOON, "it saw both", || (watch.out().contains("0001_init") && watch.out().contains("0002_more")).then_some(()));
    for line in watch.out().lines() {
        serde_json::from_str::<Value>(line).unwrap_or_else(|e| panic!("{e}: {line}"));
    }
}

#[test]
fn diagnostics_hold_no_secret_and_doctor_finds_what_is_wrong() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x); INSERT INTO notes VALUES ('my diary entry');");
    server.publish("notes", &two());
    let mut daemon = device.start();
    daemon.until_settled(SOON, 2);
    let token: String = one(&device.state().join("device.db"), "SELECT value FROM setting WHERE key = 'device_token'");
    let path = device.path("diagnostics.json");
    let outcome = device.run(&["diagnostics", "-o", path.to_str().unwrap()]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let bytes = fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}: {outcome}", path.display()));
    let contains = |text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(!contains(&token) && !contains("my diary entry"));
    assert!(contains("0001_init"), "is it packed? then this story cannot see into it");
    let doctor = device.json(&["doctor"]);
    assert!(doctor["checks"].as_array().is_some_and(|c| !c.is_empty()), "{doctor:#}");
    daemon.stop();
    assert_ne!(device.run(&["doctor"]).code, 0, "no daemon, and nothing wrong?");
}

#[test]
fn a_stopped_daemon_leaves_no_socket_that_misleads() {
    let stage = stage();
    let (_server, device) = pair(&stage, "");
    let daemon = device.start();
    daemon.kill();
    device.run(&["status"]).says(69, &["whimbrel run"]);
    device.start().stop();
    device.run(&["status"]).says(69, &["whimbrel run"]);
}

#[test]
fn two_daemons_do_not_share_one_state_directory() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &two());
    let mut daemon = device.start();
    daemon.until_settled(SOON, 2);
    let mut second = Process::start(device.command(&["run"]), device.folder(), "second");
    until(SOON, "the second says that it waits", || second.log().contains("another whimbrel").then_some(()));
    assert_eq!(only(&daemon.status())["version"], 2);
    daemon.kill();
    // And takes over.
    until(SOON, "the second answers", || device.try_status().filter(|s| s["daemon"]["pid"] == second.pid()));
    second.stop();
}

#[test]
fn a_server_that_restarts_and_a_daemon_that_restarts_go_on_where_they_were() {
    let stage = stage();
    let mut server = Server::start(stage.path());
    let device = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes");
    device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    server.publish("notes", &two());
    device.once_well();
    server.restart();
    let wire = whimbrel_tests::Wire::to(server.addr());
    wire.tamper(|_, answer| answer.to_bytes());
    let mut device = device;
    device.lead_to(&wire.url());
    device.once_well();
    // Nothing is new after either's restart: nothing is fetched again.
    assert!(wire.requests().iter().all(|r| !r.contains("/repository/")), "{:?}", wire.requests());
}

#[test]
fn a_hold_ends_a_wait_for_the_application_at_once() {
    let stage = stage();
    let (server, device) = pair(&stage, "CREATE TABLE notes(x)");
    server.publish("notes", &two());
    let app = whimbrel_tests::App::holding_the_lock(&device.path("notes.db"), Duration::from_secs(3600));
    // A file that is not prepared yet is waited for too, before anything else: let it be known first.
    drop(app);
    server.plan_nothing("notes");
    device.once_well_or_waiting();
    server.plan_all("notes");
    let app = whimbrel_tests::App::holding_the_lock(&device.path("notes.db"), Duration::from_secs(3600));
    let mut daemon = device.start();
    daemon.until(SOON, "it waits for the application", |s| (only(s)["now"]["phase"] == "waiting").then_some(()));
    let begun = Instant::now();
    let held = device.run(&["hold"]);
    daemon.until(SOON, "it waits no more", |s| (only(s)["now"]["phase"] == "idle").then_some(()));
    let took = begun.elapsed();
    eprintln!("a hold ended the wait in {took:.0?}");
    assert!([0, 3].contains(&held.code), "{held}");
    assert!(took < Duration::from_secs(2), "it took {took:?}");
    drop(app);
    device.run(&["release"]);
    daemon.until_settled(SOON, 2);
}

#[test]
fn status_says_what_the_first_cycle_is_about_to_do() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &[long("0001_long", "big"), Mig::up("0002_after", "CREATE TABLE after(x)")]);
    let mut daemon = device.start();
    daemon.until(SOON, "the first migration runs", |status| {
        let database = only(status);
        // Never done before it is done.
        assert_eq!(database["status"] == "completed", database["version"] == 2, "{status:#}");
        (database["now"]["phase"] == "running" && database["now"]["name"] == "0001_long").then(|| {
            let said = [&database["status"], &database["pending"], &database["latest"], &database["order"]["version"]];
            assert_eq!(said, [&json!("running"), &json!(2), &json!(2), &json!(2)], "{status:#}");
        })
    });
    daemon.until_settled(SOON, 2);
}

#[test]
fn a_reload_takes_a_new_configuration_and_keeps_the_old_one_when_it_is_wrong() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    server.publish("notes", &two());
    let mut daemon = device.start();
    daemon.until_settled(SOON, 2);
    fs::write(device.config(), "nonsense = 1\n").unwrap();
    daemon.process.expect_error("the configuration stays as it was");
    daemon.process.signal(libc::SIGHUP);
    until(SOON, "it says what is wrong", || daemon.process.log().contains("nonsense").then_some(()));
    device.make("more.db", "");
    let device_with_more = Device::new(stage.path(), "device", &server.url()).database("notes.db", "notes").database("more.db", "notes");
    daemon.process.signal(libc::SIGHUP);
    daemon.until(SOON, "both databases are in place", |status| {
        let list = status["databases"].as_array()?;
        (list.len() == 2 && list.iter().all(|d| d["version"] == 2)).then_some(())
    });
    assert_eq!(one::<u32>(&device_with_more.path("more.db"), "SELECT count(*) FROM notes2"), 0);
}

/// Begins as a command does: connects and says hello. The answer has to come.
fn greet(socket: &Path) -> std::io::Result<()> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(SOON))?;
    stream.write_all(b"{\"request\":\"hello\",\"protocol\":1}\n")?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer)?;
    if answer.contains("\"hello\"") { Ok(()) } else { Err(std::io::Error::other(format!("it said {answer:?}"))) }
}

#[test]
fn a_command_finds_the_daemon_at_every_moment_of_a_reload() {
    const RELOADS: usize = 5;
    let stage = stage();
    let (_server, device) = pair(&stage, "");
    let daemon = device.start();
    let socket = device.state().join("control.sock");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let knocking = scope.spawn(|| {
            let mut knocks = 0;
            while !done.load(Ordering::Relaxed) {
                greet(&socket).unwrap_or_else(|e| panic!("knock {knocks}: {e}"));
                knocks += 1;
            }
            knocks
        });
        for reloads in 1..=RELOADS {
            daemon.process.signal(libc::SIGHUP);
            until(SOON, "it has read its configuration again", || {
                (knocking.is_finished() || daemon.process.log().matches("was read again").count() >= reloads).then_some(())
            });
        }
        done.store(true, Ordering::Relaxed);
        let knocks = knocking.join().expect("every knock was heard");
        assert!(knocks > RELOADS, "{knocks}");
    });
    assert_eq!(device.run(&["status"]).code, 0);
    daemon.stop();
    assert!(!socket.exists());
}

#[test]
fn a_single_run_beside_a_daemon_is_done_by_the_daemon() {
    let stage = stage();
    let (server, device) = pair(&stage, "");
    let mut daemon = device.start();
    daemon.until(SOON, "its first cycle is over", |s| (s["daemon"]["activity"] == "idle").then_some(()));
    server.publish("notes", &two());
    device.once().says(0, &[&format!("process {}", daemon.process.pid()), "version 0 → 2", "1 at the planned version", "2 migrations run"]);
    Connection::open(device.path("notes.db")).unwrap().execute("INSERT INTO notes2(id) VALUES (1)", []).unwrap();
    server.publish("notes", &[two(), vec![Mig::up("0003_wrong", "INSERT INTO notes2(id) VALUES (1)")]].concat());
    device.once().says(4, &["0003_wrong", "1 failed"]);
    daemon.process.expect_error("0003_wrong");
    drop(server);
    let one = Device::new(stage.path(), "alone", "http://127.0.0.1:1").database("notes.db", "notes");
    let alone = one.start();
    one.once().says(75, &[&format!("process {}", alone.process.pid()), "127.0.0.1:1"]);
    alone.stop();
}

#[test]
fn a_missing_certificate_store_is_shown_and_stops_nothing() {
    let stage = stage();
    let said = |name: &str, url: &str, store: &str| {
        let device = Device::new(stage.path(), name, url).database("notes.db", "notes").env("SSL_CERT_FILE", store).env("SSL_CERT_DIR", "/nowhere");
        let daemon = device.start();
        let health = daemon.status()["health"].as_array().unwrap().iter().any(|item| item["code"] == "no_ca_store" && item["severity"] == "warning");
        let doctor = device.run(&["doctor"]).said().contains("ca-certificates");
        assert_eq!(health, doctor, "{name}: status and doctor say the same");
        daemon.stop();
        health
    };
    // Any authority that is one: ISRG Root X2, as https://letsencrypt.org/certificates/ publishes it.
    let authority = stage.path().join("ca.pem");
    fs::write(&authority, include_str!("isrg-root-x2.pem")).unwrap();
    assert!(said("nothing", "https://127.0.0.1:1", "/nowhere.pem"));
    assert!(!said("without-tls", "http://127.0.0.1:1", "/nowhere.pem"));
    assert!(!said("a-store", "https://127.0.0.1:1", authority.to_str().unwrap()));
}
