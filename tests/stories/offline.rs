//! The wire is cut, the cable is pulled, the clock jumps.

use std::{
    fs,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use whimbrel_tests::{
    Device, Mig, Server, Wire,
    device::{client_id, only},
    host, http, net, until, wait,
    wire::Mode,
};

use crate::{SOON, stage};

fn three() -> Vec<Mig> {
    vec![
        Mig::up("0001_init", "CREATE TABLE one(x)"),
        Mig::up("0002_more", "CREATE TABLE two(x)"),
        Mig::up("0003_data", "INSERT INTO two VALUES (1), (2)"),
    ]
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Takes a device to where three migrations are accepted and held.
fn fetched_and_held(device: &Device, publish: impl FnOnce()) {
    let mut daemon = device.start();
    daemon.until(SOON, "the first exchange", |s| (s["server"]["state"] == "online").then_some(()));
    let held = device.run(&["hold"]);
    assert!([0, 3].contains(&held.code), "{held}");
    publish();
    daemon.poll();
    daemon.until(SOON, "three accepted", |s| (only(s)["latest"] == 3 && only(s)["pending"] == 3).then_some(()));
    assert_eq!(only(&daemon.status())["version"], 0);
    daemon.stop();
}

#[test]
fn what_was_fetched_is_applied_without_a_server_and_reported_when_it_is_back() {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("notes", &three()[..1]);
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 0 }));
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    fetched_and_held(&device, || {
        server.publish("notes", &three());
        server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 3 }));
    });

    wire.cut();
    let mut daemon = device.start();
    daemon.until(SOON, "it is offline", |s| (s["server"]["state"] == "offline").then_some(()));
    assert_eq!(only(&daemon.status())["version"], 0);
    let released = device.run(&["release"]);
    assert!([0, 75].contains(&released.code), "{released}");
    daemon.until_at(SOON, 3);
    let status = daemon.status();
    assert_eq!(status["server"]["state"], "offline");
    assert!(status["server"]["reports_unsent"].as_u64().unwrap() >= 4, "{status:#}");
    let id = client_id(&file);
    assert!(server.history(&id).is_empty());

    // No link tells on a loopback: the deadline that status shows does.
    let deadline_ms = daemon.until(SOON, "it says when it tries again", |s| s["server"]["next_poll_ms"].as_i64().filter(|at| *at > now_ms() + 300));
    wire.mend();
    let limit = Duration::from_millis((deadline_ms - now_ms()).max(0).unsigned_abs()) + Duration::from_secs(2);
    until(limit, "everything is reported by the deadline", || {
        server.statuses(&id).iter().filter(|(_, s)| s == "completed").count().eq(&3).then_some(())
    });
    daemon.until_settled(SOON, 3);
}

#[test]
fn every_way_a_wire_can_break_is_survived_and_nothing_is_reported_twice() {
    let stage = stage();
    let server = Server::start(stage.path());
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    for (mode, mig) in [Mode::Reset, Mode::Refuse, Mode::HalfClose(40), Mode::HalfClose(220)].into_iter().zip(1..) {
        server.publish("notes", &(1..=mig).map(|n| Mig::up(&format!("{n:04}_m"), format!("CREATE TABLE t{n}(x)"))).collect::<Vec<_>>());
        wire.set(mode);
        let outcome = device.once();
        assert!(outcome.code == 75 || outcome.code == 1, "{outcome}");
        assert!(outcome.said().contains(&wire.url()), "it does not say which server: {outcome}");
        wire.mend();
        device.once_well();
        assert_eq!(whimbrel_tests::device::one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), mig);
    }
    let events = whimbrel_tests::device::list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq");
    assert_eq!(server.stored_reports(&client_id(&file)), events);
}

#[test]
fn a_report_that_does_not_arrive_is_kept_and_sent_again() {
    let stage = stage();
    let server = Server::start(stage.path());
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    server.publish("notes", &three());
    wire.set(Mode::Swallow("POST /api/migrations/status"));
    for _ in 0..2 {
        let outcome = device.once();
        assert_eq!(outcome.code, 75, "{outcome}");
    }
    let id = client_id(&file);
    assert!(server.stored_reports(&id).is_empty());
    // The state says what is in place, the reports say how it came to be: neither stands for the other.
    wire.mend();
    device.once_well();
    assert_eq!(server.stored_reports(&id), whimbrel_tests::device::list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq"));
}

#[test]
fn an_acknowledgement_that_is_lost_does_not_double_a_report() {
    let stage = stage();
    let server = Server::start(stage.path());
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    server.publish("notes", &three());
    // Reports arrive; the answers to them never do.
    wire.tamper(|request, answer| if request.first.starts_with("POST /api/migrations/status") { Vec::new() } else { answer.to_bytes() });
    let outcome = device.once();
    assert_eq!(outcome.code, 75, "{outcome}");
    let id = client_id(&file);
    let events = || whimbrel_tests::device::list(&file, "SELECT event_id FROM _whimbrel_event ORDER BY seq");
    assert_eq!(server.stored_reports(&id), events());
    wire.mend();
    device.once_well();
    assert_eq!(server.stored_reports(&id), events());
}

#[test]
fn a_link_that_comes_up_is_noticed_and_used_within_two_seconds() {
    if !host::root() || !host::has("ip") {
        return;
    }
    let Some(cable) = net::Cable::lay() else { return host::skip("network namespaces cannot be made here") };
    let stage = stage();
    let server = Server::inside(stage.path(), &cable.far, "10.77.0.1:8787");
    // Plain HTTP is for loopback only, so a wire inside the near side carries it across.
    let wire = Wire::inside(server.addr(), Some(cable.near.clone()));
    let device = Device::new(stage.path(), "device", &wire.url()).inside(&cable.near).database("notes.db", "notes");
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    server.publish_unchecked("notes", &three()[..1]);
    server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 0 }));
    fetched_and_held(&device, || {
        server.publish_unchecked("notes", &three());
        server.plan("notes", &serde_json::json!({ "order": "apply_up_to", "version": 3 }));
    });

    cable.pull();
    let mut daemon = device.start();
    daemon.until(SOON, "it is offline", |s| (s["server"]["state"] == "offline").then_some(()));
    let released = device.run(&["release"]);
    assert!([0, 75].contains(&released.code), "{released}");
    daemon.until_at(SOON, 3);
    let id = client_id(&file);
    assert!(server.history(&id).is_empty());
    // So that it cannot be the retry deadline: wait until that is well away.
    daemon.until(Duration::from_secs(300), "a retry that is far away", |s| {
        let calm = s["daemon"]["activity"] == "idle" && s["server"]["next_poll_ms"].as_i64().is_some_and(|at| at > now_ms() + 6_000);
        calm.then_some(())
    });
    let begun = Instant::now();
    cable.plug();
    until(Duration::from_secs(5), "it is reported", || server.statuses(&id).iter().filter(|(_, s)| s == "completed").count().eq(&3).then_some(()));
    let took = begun.elapsed();
    eprintln!("reported {took:.2?} after the link came up");
    assert!(took < Duration::from_secs(2), "reported only {took:?} after the link came up");
    daemon.until_settled(SOON, 3);
    drop(daemon);
}

#[test]
fn the_daemon_goes_on_when_the_clock_jumps() {
    let Some(library) = host::faketime() else { return };
    let stage = stage();
    let server = Server::start(stage.path());
    let clock = stage.path().join("clock");
    fs::write(&clock, "+0").unwrap();
    let device = Device::new(stage.path(), "device", &server.url())
        .database("notes.db", "notes")
        .polls("*/2 * * * * *")
        .env("FAKETIME_TIMESTAMP_FILE", &clock)
        .env("FAKETIME_NO_CACHE", "1")
        .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .env("LD_PRELOAD", &library);
    let file = device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    let chain = |length: u32| (1..=length).map(|n| Mig::up(&format!("{n:04}_m"), format!("CREATE TABLE t{n}(x)"))).collect::<Vec<_>>();
    let mut daemon = device.start();
    server.publish("notes", &chain(1));
    daemon.until_settled(SOON, 1);
    for (jump, version) in ["-3600", "+86400", "1970-01-01 00:00:10", "+0"].iter().zip(2..) {
        // As one step: a file that is being written would be half a time.
        let next = clock.with_extension("next");
        fs::write(&next, jump).unwrap();
        fs::rename(&next, &clock).unwrap();
        server.publish("notes", &chain(version));
        let begun = Instant::now();
        daemon.until_settled(SOON, version);
        eprintln!("clock {jump}: settled after {:.1?}", begun.elapsed());
    }
    let id = client_id(&file);
    assert_eq!(server.statuses(&id).len(), 5);
    daemon.stop();
}

#[test]
fn a_server_that_hangs_does_not_hang_the_daemon() {
    let stage = stage();
    let server = Server::start(stage.path());
    let wire = Wire::to(server.addr());
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    server.publish("notes", &three());
    wire.set(Mode::BlackHole);
    let daemon = device.start();
    // While it waits for an answer that never comes, it answers a person, and stops when it is told.
    wait::moment(Duration::from_secs(1));
    let begun = Instant::now();
    let status: Value = daemon.status();
    assert!(begun.elapsed() < Duration::from_secs(2), "{status:#}");
    let begun = Instant::now();
    daemon.stop();
    assert!(begun.elapsed() < Duration::from_secs(5), "it took {:?} to stop", begun.elapsed());
}

#[test]
fn the_namespaces_carry_what_the_stage_says() {
    if !host::root() || !host::has("ip") {
        return;
    }
    // The stage itself, broken once: with the cable pulled nobody answers.
    let Some(cable) = net::Cable::lay() else { return host::skip("network namespaces cannot be made here") };
    let stage = stage();
    let server = Server::inside(stage.path(), &cable.far, "10.77.0.1:8787");
    let ask = || net::on(&cable.near, || http::ask(server.addr(), "GET", "/healthz", "", b"").is_ok());
    assert!(ask());
    cable.pull();
    let reached = net::on(&cable.near, || std::net::TcpStream::connect_timeout(&server.addr(), Duration::from_millis(500)).is_ok());
    assert!(!reached);
    cable.plug();
    until(SOON, "the link is back", || ask().then_some(()));
}

#[test]
fn a_lost_answer_to_an_enrolment_costs_no_second_use_of_the_token() {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("notes", &three());
    let wire = Wire::to(server.addr());
    let token = server.token_for("notes", 1);
    let enroll = |device: &Device| device.run(&["enroll", &wire.url(), "--token", &token]);
    let device = Device::new(stage.path(), "device", &wire.url()).database("notes.db", "notes");
    wire.set(Mode::HalfClose(0));
    enroll(&device).says(75, &[]);
    wire.mend();
    enroll(&device).says(0, &["enrolled for notes"]);
    device.once_well();
    assert_eq!(server.clients("notes").len(), 1);
    // The only use is spent, and it was this device's: also when it asks anew.
    let other = Device::new(stage.path(), "other", &wire.url()).database("notes.db", "notes");
    enroll(&other).says(1, &["no uses left"]);
}
