//! Enrolling, polling, sending states, reading the repository.

use serde_json::json;
use whimbrel_server::{
    secrets::Scope,
    store::{ClientsPage, Store},
};
use whimbrel_shared::{
    ids::Digest,
    protocol::{
        enroll::EnrollResponse,
        poll::{Order, PollResponse},
    },
};

use crate::support::{Stage, chain, client_id, state};

#[tokio::test]
async fn a_device_enrols_once_and_for_a_second_app_with_the_same_token() {
    let stage = Stage::new().await;
    let notes = stage.token("notes", 1).await;
    let ask = json!({ "token": notes, "name": "laptop", "daemon_version": "0.1.0" });
    let first = stage.post("/api/enroll", "", ask.clone()).await;
    let first: EnrollResponse = serde_json::from_slice(&first.body).unwrap();
    assert_eq!(first.app.as_str(), "notes");
    let used_up = stage.post("/api/enroll", "", ask).await;
    used_up.problem(401, "enrolment-used-up");

    let tasks = stage.token("tasks", 1).await;
    let mut ask = json!({ "token": tasks, "device_id": first.device_id, "device_token": "whd_guess" });
    let guess = stage.post("/api/enroll", "", ask.clone()).await;
    guess.problem(401, "unknown-device");
    ask["device_token"] = json!(first.device_token);
    let second = stage.post("/api/enroll", "", ask).await;
    let second: EnrollResponse = serde_json::from_slice(&second.body).unwrap();
    assert_eq!((second.device_id, &second.device_token), (first.device_id, &first.device_token));
    let poll = stage.get("/api/poll", &first.device_token).await;
    let poll: PollResponse = serde_json::from_slice(&poll.body).unwrap();
    assert_eq!(poll.repository.len(), 2);
}

#[tokio::test]
async fn an_enrolment_asked_for_again_is_answered_for_the_same_device() {
    let stage = Stage::new().await;
    let mut ask = json!({ "token": stage.token("notes", 1).await, "enrolment_id": "6d3f0c4e-7f1c-4b52-9f0e-0a4f5f3a9b11", "name": "laptop" });
    let lost = stage.post("/api/enroll", "", ask.clone()).await;
    let lost: EnrollResponse = serde_json::from_slice(&lost.body).unwrap();
    let again = stage.post("/api/enroll", "", ask.clone()).await;
    let again: EnrollResponse = serde_json::from_slice(&again.body).unwrap();
    assert_eq!(again.device_id, lost.device_id);
    stage.get("/api/poll", &lost.device_token).await.problem(401, "unknown-token");
    assert_eq!(stage.get("/api/poll", &again.device_token).await.status, 200);
    ask["name"] = json!("another laptop");
    stage.post("/api/enroll", "", ask).await.problem(409, "enrolment-differs");
}

#[tokio::test]
async fn guessing_enrolment_tokens_is_slowed_down() {
    let stage = Stage::new().await;
    let guess = json!({ "token": "wht_guess" });
    for _ in 0..30 {
        let refused = stage.post("/api/enroll", "", guess.clone()).await;
        refused.problem(401, "unknown-enrolment-token");
    }
    let refused = stage.post("/api/enroll", "", guess).await;
    refused.problem(429, "too-many-failures");
    assert!(refused.headers["retry-after"].parse::<u32>().unwrap() <= 60);
}

#[tokio::test]
async fn a_poll_is_304_until_something_changes() {
    let stage = Stage::new().await;
    let device = stage.device("notes").await;
    stage.post("/api/state", &device, state(&[(1, 0)])).await;
    let first = stage.get("/api/poll", &device).await;
    let etag = first.headers["etag"].clone();
    assert_eq!(etag, format!("\"{}\"", Digest::of(&first.body)));
    let again = async || {
        let headers = format!("Authorization: Bearer {device}\r\nIf-None-Match: {etag}\r\n");
        stage.ask("GET", "/api/poll", &headers, b"").await
    };
    let same = again().await;
    assert_eq!((same.status, same.body.len()), (304, 0));
    assert_eq!(same.headers["etag"], etag);

    stage.publish(chain(2)).await;
    let changed = again().await;
    assert_eq!(changed.status, 200);
    let poll: PollResponse = serde_json::from_slice(&changed.body).unwrap();
    assert_eq!(poll.plans[0].client_id.to_string(), client_id(1));
    assert_eq!(poll.plans[0].order, Order::ApplyUpTo { version: 2 });
}

#[tokio::test]
async fn the_repository_serves_what_was_published_byte_for_byte() {
    let stage = Stage::new().await;
    stage.publish(chain(2)).await;
    let (device, stranger) = (stage.device("notes").await, stage.device("tasks").await);
    let poll = stage.get("/api/poll", &device).await;
    let poll: PollResponse = serde_json::from_slice(&poll.body).unwrap();
    let head = &poll.repository[&"notes".parse().unwrap()];
    let targets = stage.get("/repository/notes/targets.json", &device).await;
    assert_eq!(head.digest, Digest::of(&targets.body));
    assert_eq!(head.version, targets.json()["version"].as_u64().unwrap());

    let path = "/repository/notes/targets/0001%20init.r1.json";
    let target = stage.get(path, &device).await;
    assert_eq!(target.body, chain(1)[0].body.as_bytes());
    assert!(target.headers["cache-control"].contains("immutable"));
    let key = stage.key(Scope::Read).await;
    assert_eq!(stage.get(path, &key).await.status, 200);
    for path in [path, "/repository/notes/targets.json"] {
        stage.get(path, &stranger).await.problem(403, "not-enrolled");
    }
    stage.get(path, "").await.problem(401, "no-device-token");
    let missing = stage.get("/repository/notes/targets/..%2Fx", &device).await;
    missing.problem(404, "no-such-target");
    let nothing_yet = stage.get("/repository/tasks/targets.json", &stranger).await;
    assert_eq!(nothing_yet.json()["version"], 0);
}

#[tokio::test]
async fn a_copied_database_is_told_to_take_a_new_client_id() {
    let stage = Stage::new().await;
    let (one, two) = (stage.device("notes").await, stage.device("notes").await);
    assert_eq!(stage.post("/api/state", &one, state(&[(1, 0)])).await.json(), json!({}));
    let taken = stage.post("/api/state", &two, state(&[(1, 0)])).await;
    assert!(taken.problem(409, "client-taken").contains(&client_id(1)));
    let mut elsewhere = state(&[(2, 0)]);
    elsewhere["databases"][0]["app"] = json!("tasks");
    let refused = stage.post("/api/state", &two, elsewhere).await;
    refused.problem(403, "not-enrolled");
}

#[tokio::test]
async fn a_stopped_server_has_written_when_it_heard_of_its_devices() {
    let stage = Stage::new().await;
    let device = stage.device("notes").await;
    stage.post("/api/state", &device, state(&[(1, 0)])).await;
    let before = whimbrel_server::secrets::now_ms();
    assert_eq!(stage.get("/api/poll", &device).await.status, 200);
    let store = stage.stop().await;
    let page = ClientsPage { limit: 1, ..ClientsPage::default() };
    let client = store.clients(page).await.unwrap().clients.remove(0);
    assert!(client.last_seen_ms >= before, "{} < {before}", client.last_seen_ms);
}
