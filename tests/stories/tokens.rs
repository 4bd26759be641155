//! A device's token: replaced before it is old, whatever gets lost on the way; ended by an operator; given anew.

use rusqlite::Connection;
use serde_json::{Value, json};
use whimbrel_tests::{Device, Server};

use crate::{SOON, pair, stage};

const BASE: &str = "CREATE TABLE notes(id INTEGER PRIMARY KEY)";
const DAY_MS: i64 = 86_400_000;

/// A setting in `device.db`.
fn setting(device: &Device, key: &str) -> Option<String> {
    let store = Connection::open(device.state().join("device.db")).unwrap();
    let mut query = store.prepare("SELECT value FROM setting WHERE key = ?1").unwrap();
    query.query_map([key], |row| row.get(0)).unwrap().next().map(Result::unwrap)
}

fn set(device: &Device, key: &str, value: Option<&str>) {
    let store = Connection::open(device.state().join("device.db")).unwrap();
    match value {
        Some(value) => store.execute("INSERT OR REPLACE INTO setting (key, value) VALUES (?1, ?2)", (key, value)).unwrap(),
        None => store.execute("DELETE FROM setting WHERE key = ?1", [key]).unwrap(),
    };
}

/// Lets the device's token be so many days older than it is.
fn age(device: &Device, days: i64) {
    let since: i64 = setting(device, "token_since_ms").expect("it says since when").parse().unwrap();
    set(device, "token_since_ms", Some(&(since - days * DAY_MS).to_string()));
}

fn token(device: &Device) -> String {
    setting(device, "device_token").expect("it is enrolled")
}

/// What the server answers to somebody with that token.
fn polls(server: &Server, token: &str) -> (u16, Value) {
    let answer = whimbrel_tests::http::ask(server.addr(), "GET", "/api/poll", &format!("Authorization: Bearer {token}\r\n"), b"").unwrap();
    (answer.status(), if answer.body.is_empty() { Value::Null } else { answer.json() })
}

/// The one device that the server knows.
fn known(server: &Server) -> Value {
    let devices = server.get("/api/devices")["devices"].as_array().unwrap().clone();
    assert_eq!(devices.len(), 1, "{devices:?}");
    devices[0].clone()
}

#[test]
fn a_token_is_replaced_before_it_is_old_and_the_old_one_ends_after_its_grace() {
    let stage = stage();
    let (server, device) = pair(&stage, BASE);
    device.once_well();
    let first = token(&device);
    let since = known(&server)["token_since_ms"].as_i64().unwrap();
    age(&device, 29);
    device.once_well();
    assert_eq!(token(&device), first, "it is not old yet");
    age(&device, 1);
    device.once_well();
    let second = token(&device);
    assert_ne!(second, first);
    assert_eq!((setting(&device, "next_token"), second.len(), &second[..4]), (None, 68, "whd_"));
    assert!(known(&server)["token_since_ms"].as_i64().unwrap() > since);
    // Both count, until the grace is over.
    assert_eq!((polls(&server, &first).0, polls(&server, &second).0), (200, 200));
    server.store().execute("UPDATE device SET previous_until_ms = 1", []).unwrap();
    assert_eq!((polls(&server, &first).0, polls(&server, &second).0), (401, 200));
    device.once_well();
}

#[test]
fn whatever_gets_lost_while_a_token_is_replaced_the_device_has_one_that_counts() {
    // A crash before the server heard of it, after it did, and one whose answer stays away longer than the old token counts.
    for (heard, late) in [(false, false), (true, false), (true, true)] {
        let stage = stage();
        let (server, device) = pair(&stage, BASE);
        device.once_well();
        let first = token(&device);
        age(&device, 30);
        device.once_well();
        let second = token(&device);
        // The disk as it was before the answer came.
        set(&device, "device_token", Some(&first));
        set(&device, "next_token", Some(&second));
        if !heard {
            server.store().execute("UPDATE device SET token_hash = previous_hash, previous_hash = NULL, previous_until_ms = NULL", []).unwrap();
        }
        if late {
            server.store().execute("UPDATE device SET previous_until_ms = 1", []).unwrap();
        }
        device.once_well();
        assert_eq!((token(&device), setting(&device, "next_token")), (second.clone(), None), "heard {heard}, late {late}");
        assert_eq!(polls(&server, &second).0, 200);
        device.once_well();
    }
}

#[test]
fn a_token_that_somebody_else_replaced_is_an_alarm() {
    let stage = stage();
    let (server, device) = pair(&stage, BASE);
    device.once_well();
    let body = json!({ "next": "0".repeat(64) }).to_string();
    let headers = format!("Authorization: Bearer {}\r\nContent-Type: application/json\r\n", token(&device));
    let ask = |body: &str| whimbrel_tests::http::ask(server.addr(), "POST", "/api/token", &headers, body.as_bytes()).unwrap().status();
    assert_eq!((ask(&body), ask(&body), ask(&json!({ "next": "1".repeat(64) }).to_string())), (200, 200, 409));
    age(&device, 30);
    let daemon = device.start();
    daemon.poll();
    let mut daemon = daemon;
    daemon.until(SOON, "the alarm", |status| status["health"].as_array()?.iter().find(|h| h["code"] == "token_replaced").cloned());
    daemon.kill();
}

#[test]
fn a_revoked_device_says_so_and_comes_back_with_a_new_enrolment() {
    let stage = stage();
    let (server, device) = pair(&stage, BASE);
    device.once_well();
    let old = token(&device);
    let id = known(&server)["device_id"].as_str().unwrap().to_owned();
    let reader = server.key_for("read");
    assert_eq!(server.ask_as(&reader, "POST", &format!("/api/devices/{id}/revoke"), &Value::Null).status(), 403);
    assert_eq!(server.ask("POST", &format!("/api/devices/{id}/revoke"), &Value::Null).status(), 200);
    assert_eq!(server.ask("POST", "/api/devices/00000000-0000-4000-8000-000000000000/revoke", &Value::Null).status(), 404);
    let (status, problem) = polls(&server, &old);
    assert_eq!((status, &problem["type"]), (401, &json!("/problems/device-revoked")));

    let mut daemon = device.start();
    let health = daemon.until(SOON, "the revocation", |status| status["health"].as_array()?.iter().find(|h| h["code"] == "device_revoked").cloned());
    assert!(health["remedy"].to_string().contains("whimbrel enroll"), "{health}");
    daemon.stop();
    assert!(known(&server)["revoked_at_ms"].is_i64());

    device.enroll(&server.token_for("notes", 1));
    let new = token(&device);
    assert_ne!(new, old);
    device.once_well();
    assert_eq!((polls(&server, &old).0, polls(&server, &new).0), (401, 200));
    let now = known(&server);
    assert_eq!((now["device_id"].as_str(), now["revoked_at_ms"].is_null()), (Some(id.as_str()), true));
    let audit = server.get("/api/audit?limit=2");
    let actions: Vec<&str> = audit["entries"].as_array().unwrap().iter().filter_map(|e| e["action"].as_str()).collect();
    assert_eq!(actions, ["token.create", "device.revoke"]);
    assert!(audit["next"].is_i64(), "{audit}");
}

#[test]
fn a_device_that_the_server_has_forgotten_can_become_another() {
    let stage = stage();
    let (server, device) = pair(&stage, BASE);
    device.once_well();
    set(&device, "device_token", Some("whd_lost"));
    let (url, token) = (server.url(), server.token("notes"));
    device.run(&["enroll", &url, "--token", &token]).says(1, &["is not known here", "--as-new"]);
    device.run(&["enroll", &url, "--token", &token, "--as-new"]).says(0, &["enrolled"]);
    assert_eq!(server.get("/api/devices")["devices"].as_array().unwrap().len(), 2);
}

#[test]
fn operators_list_devices_and_what_was_done_from_the_command_line() {
    let stage = stage();
    let (server, device) = pair(&stage, BASE);
    device.once_well();
    let run = |args: &[&str]| {
        let output = server.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let id = known(&server)["device_id"].as_str().unwrap().to_owned();
    let line = run(&["device", "list"]);
    assert!(line.starts_with(&id) && line.contains("token 0 days old"), "{line}");
    run(&["device", "revoke", &id]);
    assert!(run(&["device", "list"]).contains("revoked 0 days ago"));
    let entries: Vec<Value> = serde_json::from_str(&run(&["audit", "--json", "--limit", "2"])).unwrap();
    assert_eq!((&entries[0]["action"], &entries[0]["detail"], entries.len()), (&json!("device.revoke"), &json!(id), 2));
    let older = run(&["audit", "--before", &entries[1]["seq"].to_string()]);
    assert!(older.contains("key.create") && !older.contains("device.revoke"), "{older}");
}

#[test]
fn who_sends_secrets_that_nobody_has_is_told_to_wait_and_good_ones_from_there_go_on() {
    let stage = stage();
    let (server, device) = pair(&stage, BASE);
    device.once_well();
    let statuses: Vec<u16> = (0..40).map(|n| polls(&server, &format!("whd_guess{n}")).0).collect();
    assert_eq!((statuses[0], statuses[29], statuses[30], statuses[39]), (401, 401, 429, 429), "{statuses:?}");
    assert_eq!(polls(&server, &token(&device)).0, 200);
    assert_eq!(server.get("/api/clients")["clients"].as_array().unwrap().len(), 1);
}
