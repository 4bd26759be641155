//! Reports in both forms, and the seed's pending endpoint.

use serde_json::json;
use whimbrel_server::secrets::Scope;
use whimbrel_shared::migration::SeedMigration;

use crate::support::{Stage, chain, client_id, event, state};

const PENDING: &str = "/api/migrations/pending";
const STATUS: &str = "/api/migrations/status";

#[tokio::test]
async fn one_clients_flag_hides_nothing_from_another() {
    let stage = Stage::new().await;
    stage.publish(chain(3)).await;
    let (one, two) = (stage.device("notes").await, stage.device("notes").await);
    let pending = async |device: &str| -> Vec<SeedMigration> { serde_json::from_slice(&stage.get(PENDING, device).await.body).unwrap() };
    let first = pending(&one).await;
    assert_eq!(first.len(), 3);
    assert_eq!(first[0].up_queries, ["CREATE TABLE t1(x);"]);
    assert_eq!(first[0].down_queries, ["DROP TABLE t1;"]);
    assert!(!first[0].client_applied);
    let applied = json!({ "migrationName": "0001 init", "applied": true });
    for expected in [1, 0] {
        let answer = stage.post(STATUS, &one, applied.clone()).await.json();
        assert_eq!(answer["success"], true);
        assert_eq!(answer["acknowledged"].as_array().unwrap().len(), expected);
    }
    let names = |list: &[SeedMigration]| -> Vec<String> { list.iter().map(|m| m.migration_name.to_string()).collect() };
    assert_eq!(names(&pending(&one).await), ["0002 init", "0003 init"]);
    assert_eq!(names(&pending(&two).await), ["0001 init", "0002 init", "0003 init"]);
}

#[tokio::test]
async fn pending_follows_the_plan_and_is_304_when_nothing_changed() {
    let stage = Stage::new().await;
    stage.publish(chain(3)).await;
    let (device, key) = (stage.device("notes").await, stage.key(Scope::Operate).await);
    let order = json!({ "app": "notes", "order": { "order": "apply_up_to", "version": 2 } });
    stage.put("/api/plan", &key, order).await;
    let first = stage.get(PENDING, &device).await;
    assert_eq!(first.json().as_array().unwrap().len(), 2);
    let headers = format!("Authorization: Bearer {device}\r\nIf-None-Match: {}\r\n", first.headers["etag"]);
    assert_eq!(stage.ask("GET", PENDING, &headers, b"").await.status, 304);
}

#[tokio::test]
async fn a_device_with_several_databases_has_to_name_one() {
    let stage = Stage::new().await;
    stage.publish(chain(1)).await;
    stage.get(PENDING, "").await.problem(401, "no-device-token");
    let device = stage.device("notes").await;
    stage.post("/api/state", &device, state(&[(1, 0), (2, 1)])).await;
    let which = stage.get(PENDING, &device).await;
    assert!(which.problem(409, "which-database").contains(&client_id(2)));
    for (client, expected) in [(1, 1), (2, 0)] {
        let path = format!("{PENDING}?client_id={}", client_id(client));
        let pending = stage.get(&path, &device).await.json();
        assert_eq!(pending.as_array().unwrap().len(), expected);
    }
    let foreign = format!("{PENDING}?client_id={}", client_id(9));
    stage.get(&foreign, &device).await.problem(404, "not-your-database");
    let nonsense = format!("{PENDING}?client_id=me");
    stage.get(&nonsense, &device).await.problem(400, "bad-input");
    let flag = json!({ "migrationName": "0001 init", "applied": true });
    stage.post(STATUS, &device, flag).await.problem(409, "which-database");
}

#[tokio::test]
async fn a_report_may_arrive_twice_and_may_not_change() {
    let stage = Stage::new().await;
    stage.publish(chain(2)).await;
    let (device, key) = (stage.device("notes").await, stage.key(Scope::Read).await);
    let started = event(1, 1, "0001 init", 1, "started", "running");
    let done = event(1, 2, "0001 init", 1, "completed", "completed");
    let batch = json!({ "reports": [started, done] });
    for _ in 0..2 {
        let answer = stage.post(STATUS, &device, batch.clone()).await.json();
        let ids = json!([batch["reports"][0]["event_id"], batch["reports"][1]["event_id"]]);
        assert_eq!(answer["acknowledged"], ids);
    }
    let history = format!("/api/clients/{}/history", client_id(1));
    let stored = async || {
        let history = stage.get(&history, &key).await.json();
        history["events"].as_array().unwrap().len()
    };
    assert_eq!(stored().await, 2);

    let mut changed = event(1, 2, "0001 init", 1, "failed", "failed");
    changed["attempt"] = json!(7);
    let fresh = event(1, 3, "0002 init", 2, "completed", "completed");
    let refused = stage.post(STATUS, &device, json!({ "reports": [fresh, changed] })).await;
    let detail = refused.problem(409, "event-differs");
    assert!(detail.contains("11111111-0000-4000-8000-000000000002"), "{detail}");
    assert_eq!(stored().await, 2, "a part of a refused batch stayed");

    let other = stage.device("notes").await;
    let foreign = event(1, 4, "0002 init", 2, "completed", "completed");
    let refused = stage.post(STATUS, &other, json!({ "reports": [foreign] })).await;
    refused.problem(409, "client-taken");
}

#[tokio::test]
async fn a_bad_report_is_told_what_is_wrong_with_it() {
    let stage = Stage::new().await;
    let device = stage.device("notes").await;
    let check = async |body: &[u8], kind: &str, part: &str| {
        let headers = format!("Authorization: Bearer {device}\r\n");
        let refused = stage.ask("POST", STATUS, &headers, body).await;
        let detail = refused.problem(400, kind);
        assert!(detail.contains(part), "{detail}");
    };
    check(b"{\"applied\":true}", "bad-input", "migrationName is required").await;
    check(b"{\"migrationName\":\"../x\",\"applied\":true}", "bad-input", "migration name").await;
    check(b"{\"migrationName\":\"x\"}", "bad-input", "applied").await;
    check(b"{\"reports\":3}", "bad-input", "not a list").await;
    check(b"{\"reports\":[{}]}", "bad-input", "report 1: missing field").await;
    check(b"{\"reports\":", "bad-body", "line 1 column").await;
    check(b"\xff", "bad-body", "line 1 column").await;
    let many = json!({ "reports": vec![1; 501] });
    check(many.to_string().as_bytes(), "bad-input", "at most 500").await;
    let mut beyond = event(1, 1, "x", 1, "completed", "completed");
    beyond["version"] = json!(4_000_000_000u32);
    let beyond = json!({ "reports": [beyond] });
    check(beyond.to_string().as_bytes(), "bad-input", "version 4000000000").await;
}
