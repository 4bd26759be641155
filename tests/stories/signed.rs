//! A device that believes signatures, and a server in other hands: what is accepted, what runs, what is named. The last
//! stories are about time: years of sleep, and clocks that went back.

use whimbrel::trust::clock::built_ms;
use whimbrel_shared::protocol::poll::Order;
use whimbrel_tests::{
    Device, content_hash,
    device::only,
    signed_server::SignedServer,
    sleeper::Sleeper,
    tuf_place::{Misdeed, TufPlace},
    tuf_repository::{DAY_MS, Key},
};

use crate::tuf_client::NOW;

fn stage() -> (SignedServer, Sleeper) {
    let server = SignedServer::start(NOW);
    let device = Sleeper::new(&server.url(), &server.repository.root(), NOW);
    (server, device)
}

const NONE: [&str; 0] = [];

#[test]
fn what_the_publisher_signed_runs_and_what_the_server_signed_itself_does_not() {
    let (mut server, mut device) = stage();
    server.publish();
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned()], vec![]));
    let (before, floors) = (content_hash(&device.database()), device.floors());
    // The server's keys are the thief's; the publisher's are not.
    let honest = server.repository.keys.insert("targets".to_owned(), vec![Key::new()]).unwrap();
    server.publish();
    device.cycle();
    assert_eq!(device.codes(), ["not_fetched", "unsigned"]);
    assert_eq!((content_hash(&device.database()), device.accepted()), (before, vec![1]));
    assert_eq!(device.floors().iter().find(|(role, _)| role == "targets"), floors.iter().find(|(role, _)| role == "targets"));
    server.repository.keys.insert("targets".to_owned(), honest);
    server.repository.sign_targets();
    server.serve();
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned(), "t2".to_owned()], vec![]));
}

#[test]
fn bytes_that_are_not_those_of_the_signed_target_are_not_accepted() {
    let (mut server, mut device) = stage();
    server.publish();
    let name = server.repository.files.keys().find(|name| name.starts_with("targets/")).unwrap().clone();
    let mut bytes = server.repository.files[&name].clone();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    server.place.misbehave(&name, Misdeed::Other(bytes));
    device.cycle();
    assert_eq!((device.codes(), device.accepted(), device.tables()), (vec!["mixed".to_owned(), "not_fetched".to_owned()], vec![], vec![]));
    server.place.behave();
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned()], vec![]));
}

#[test]
fn an_idle_poll_asks_for_nothing_of_the_repository() {
    let (mut server, mut device) = stage();
    server.publish();
    device.cycle();
    server.serve();
    let polls = server.polls();
    device.cycle();
    assert_eq!((server.polls() - polls, server.place.asked()), (1, vec![]));
}

#[test]
fn a_migration_that_was_accepted_and_is_listed_no_more_is_withdrawn_and_does_not_run() {
    let (mut server, mut device) = stage();
    server.publish();
    server.order(Order::ApplyUpTo { version: 1 });
    server.publish();
    device.cycle();
    assert_eq!((device.accepted(), device.tables()), (vec![1, 2], vec!["t1".to_owned()]));
    let second = server.repository.targets.remove("0002_t2.r1.json").unwrap();
    server.repository.sign_targets();
    server.serve();
    server.order(Order::ApplyUpTo { version: 2 });
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned()], vec!["withdrawn".to_owned()]));
    // Offline and after a restart too.
    device.stop();
    server.place.misbehave("timestamp.json", Misdeed::Status(500));
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned()], vec!["withdrawn".to_owned()]));
    server.place.behave();
    server.repository.targets.insert("0002_t2.r1.json".to_owned(), second);
    server.repository.sign_targets();
    server.serve();
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned(), "t2".to_owned()], vec![]));
}

#[test]
fn a_frozen_repository_is_stale_and_what_was_accepted_still_runs() {
    let (mut server, mut device) = stage();
    server.order(Order::ApplyUpTo { version: 0 });
    server.publish();
    device.cycle();
    assert_eq!((device.accepted(), device.tables()), (vec![1], vec![]));
    // The poll goes on; the repository that it speaks of stands still.
    device.set_clock(NOW + 31 * DAY_MS);
    server.order(Order::ApplyUpTo { version: 1 });
    device.cycle();
    assert_eq!((device.codes(), device.tables()), (vec!["stale".to_owned()], vec!["t1".to_owned()]));
    server.publish();
    device.cycle();
    assert_eq!((device.codes(), device.accepted()), (vec!["stale".to_owned()], vec![1]), "it is signed for last month");
    server.order(Order::ApplyUpTo { version: 2 });
    for role in ["targets", "snapshot", "timestamp"] {
        server.repository.expires_ms.insert(role.to_owned(), device.now_ms() + DAY_MS);
    }
    server.repository.sign_targets();
    server.serve();
    device.cycle();
    assert_eq!((device.codes(), device.tables()), (vec![], vec!["t1".to_owned(), "t2".to_owned()]));
}

#[test]
fn a_damaged_trust_store_is_shown_takes_nothing_new_and_is_rebuilt_at_its_floors() {
    let (mut server, mut device) = stage();
    server.publish();
    device.cycle();
    let floors = device.floors();
    let old = server.repository.files.clone();
    server.publish();
    device.cycle();
    assert!(device.floors() > floors);
    let floors = device.floors();
    for harm in [
        "UPDATE trust_file SET body = substr(body, 1, 100)",
        "DELETE FROM trust_file WHERE name <> 'root.json'",
        "UPDATE trust_floor SET version = 1",
        "DELETE FROM trust_file;DELETE FROM trust_floor",
        "UPDATE trust_proof SET accepted_at_ms = 253402300799000",
        "UPDATE trust_floor SET version = 253402300799000 WHERE role = 'accepted'",
    ] {
        device.stop();
        device.harm(harm);
        // Out of reach: it is shown all the same.
        server.place.misbehave("2.root.json", Misdeed::Status(500));
        device.cycle();
        assert_eq!(device.codes(), ["repository", "trust_damaged"], "{harm}");
        assert_eq!(device.exchange_error(), None, "rows go on travelling");
        server.place.behave();
        // The hour of somebody who kept old metadata.
        let new = std::mem::replace(&mut server.repository.files, old.clone());
        server.place.serve(&server.repository);
        device.cycle();
        assert_eq!(device.codes(), ["rollback", "trust_damaged"], "{harm}");
        server.repository.files = new;
        server.place.serve(&server.repository);
        device.cycle();
        assert_eq!((device.codes(), device.floors()), (vec![], floors.clone()), "{harm}");
    }
    server.publish();
    device.cycle();
    assert_eq!(device.tables(), ["t1", "t2", "t3"]);
}

#[test]
fn an_accepted_migration_whose_row_was_changed_on_disk_does_not_run() {
    let (mut server, mut device) = stage();
    server.order(Order::ApplyUpTo { version: 0 });
    server.publish();
    device.cycle();
    device.stop();
    // Body, entry and digest agree with each other; nobody signed them.
    let forged = {
        let file = rusqlite::Connection::open(device.device_db()).unwrap();
        let (body, entry): (Vec<u8>, String) = file.query_row("SELECT body, entry FROM target", [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        let body = String::from_utf8(body).unwrap().replace("CREATE TABLE t1", "DROP TABLE own; CREATE TABLE t9");
        let mut entry: whimbrel_shared::migration::TargetEntry = serde_json::from_str(&entry).unwrap();
        entry = whimbrel_shared::migration::TargetEntry::new(body.as_bytes(), entry.custom);
        let changed = file.execute(
            "UPDATE target SET body = ?1, entry = ?2, digest = ?3",
            rusqlite::params![body.as_bytes(), serde_json::to_string(&entry).unwrap(), entry.digest().to_string()],
        );
        changed.unwrap()
    };
    assert_eq!(forged, 1);
    let before = content_hash(&device.database());
    server.order(Order::ApplyUpTo { version: 1 });
    device.cycle();
    assert!(device.codes().contains(&"trust".to_owned()), "{:?}", device.codes());
    assert_eq!(content_hash(&device.database()), before);
}

#[test]
fn a_mirror_of_the_repository_is_enough_where_the_server_fails() {
    let mut server = SignedServer::start(NOW);
    server.publish();
    let mirror = TufPlace::start(&server.repository);
    let mut device = Sleeper::new(&server.url(), &server.repository.root(), NOW).setting(&format!("mirrors = [{:?}]", mirror.url()));
    for name in ["2.root.json", "timestamp.json"] {
        server.place.misbehave(name, Misdeed::Status(503));
    }
    device.cycle();
    assert_eq!((device.tables(), device.codes(), device.exchange_error()), (vec!["t1".to_owned()], vec![], None));
}

// ---- the command line ------------------------------------------------------------------------------------------------------

#[test]
fn enrolment_pins_the_root_and_the_daemon_runs_what_is_signed_under_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = SignedServer::start(built_ms().max(now_ms()));
    server.publish();
    let device = Device::new(folder.path(), "laptop", &server.url()).believing_signatures().database("notes.db", "notes");
    device.make("notes.db", "CREATE TABLE own(x)");
    let root = folder.path().join("root.json");
    std::fs::write(&root, server.repository.root()).unwrap();
    // Without a root nothing is believed.
    let outcome = device.run(&["enroll", &server.url(), "--token", "wht_test"]);
    assert_eq!(outcome.code, 0, "{outcome}");
    let outcome = device.once();
    assert!(outcome.stderr.contains("no root is pinned for notes"), "{outcome}");
    std::fs::write(folder.path().join("other.json"), b"{}").unwrap();
    let other = folder.path().join("other.json");
    let outcome = device.run(&["enroll", &server.url(), "--token", "wht_test", "--root", other.to_str().unwrap()]);
    assert_eq!(outcome.code, 2, "{outcome}");
    let outcome = device.run(&["enroll", &server.url(), "--token", "wht_test", "--root", root.to_str().unwrap()]);
    assert_eq!(outcome.code, 0, "{outcome}");
    device.once_well();
    let daemon = device.start();
    let status = daemon.status();
    assert_eq!((status["server"]["trust"].as_str(), only(&status)["version"].as_u64()), (Some("tuf"), Some(1)), "{status:#}");
    daemon.stop();
}

fn now_ms() -> i64 {
    i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

// ---- time ------------------------------------------------------------------------------------------------------------------

#[test]
fn what_was_accepted_runs_after_four_hundred_days_without_a_network() {
    let (mut server, mut device) = stage();
    server.order(Order::ApplyUpTo { version: 0 });
    server.publish();
    server.publish();
    device.cycle();
    server.order(Order::ApplyUpTo { version: 2 });
    // The plan arrives, and then nothing any more.
    server.place.misbehave("2.root.json", Misdeed::Status(500));
    device.stop();
    device.harm("INSERT INTO hold SELECT client_id, NULL, 0 FROM database");
    device.cycle();
    assert_eq!((device.accepted(), device.tables().len()), (vec![1, 2], 0));
    device.stop();
    drop(server);
    device.harm("DELETE FROM hold");
    device.set_clock(NOW + 400 * DAY_MS);
    device.cycle();
    assert!(device.exchange_error().is_some_and(|error| error.contains("cannot be reached")));
    assert_eq!(device.tables(), ["t1", "t2"]);
}

#[test]
fn a_clock_in_1970_refuses_nothing_and_is_suspect() {
    let mut server = SignedServer::start(built_ms());
    let mut device = Sleeper::new(&server.url(), &server.repository.root(), 0);
    server.publish();
    device.cycle();
    assert_eq!((device.tables(), device.codes()), (vec!["t1".to_owned()], vec!["clock_suspect".to_owned()]));
    // What was accepted in a later life of the clock is remembered when it goes back.
    device.set_clock(built_ms() + 10 * DAY_MS);
    server.publish();
    device.cycle();
    assert_eq!((device.tables().len(), device.codes().as_slice()), (2, &NONE.map(str::to_owned)[..]));
    device.stop();
    device.set_clock(DAY_MS);
    server.publish();
    device.cycle();
    assert_eq!((device.tables().len(), device.codes()), (3, vec!["clock_suspect".to_owned()]));
}

#[test]
fn two_hundred_roots_while_asleep_are_one_cycle() {
    let (mut server, mut device) = stage();
    server.publish();
    device.cycle();
    device.stop();
    for _ in 0..200 {
        server.repository.rotate("root");
    }
    server.publish();
    let (polls, asked) = (server.polls(), server.place.asked().len());
    device.cycle();
    assert_eq!((server.polls() - polls, device.codes(), device.tables().len()), (1, vec![], 2));
    // The roots, the end of them, timestamp, snapshot, targets, and the migration.
    assert_eq!(server.place.asked().len() - asked, 200 + 1 + 3 + 1);
}
