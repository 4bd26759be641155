//! Publishing, plans, and what operators read.

use serde_json::json;
use whimbrel_server::secrets::Scope;
use whimbrel_shared::protocol::{clients::ClientsResponse, publish::PublishResponse};

use crate::support::{Reply, Stage, chain, client_id, event, link, state};

#[tokio::test]
async fn publishing_again_is_a_no_op_and_a_changed_migration_is_refused() {
    let stage = Stage::new().await;
    let read = |reply: Reply| -> PublishResponse { serde_json::from_slice(&reply.body).unwrap() };
    let first = read(stage.publish(chain(2)).await);
    assert_eq!((first.published.len(), first.targets_version), (2, 1));
    let again = read(stage.publish(chain(2)).await);
    assert_eq!((again.unchanged.len(), again.targets_version), (2, 1));
    let more = read(stage.publish(chain(3)).await);
    assert_eq!((more.published.len(), more.targets_version), (1, 2));

    let changed = link(1, "0001 init", None, "CREATE TABLE other(x);");
    let mut rest = chain(4);
    rest[0] = changed;
    let refused = stage.publish(rest).await;
    assert!(refused.problem(409, "published-changed").contains("0001 init"));
    assert!(refused.json()["remedy"].as_str().unwrap().contains("never changes"));
    let device = stage.device("notes").await;
    let targets = stage.get("/repository/notes/targets.json", &device).await;
    assert_eq!(targets.json()["version"], 2, "a part of a refused publish stayed");

    let gap = chain(5).split_off(4);
    stage.publish(gap).await.problem(409, "broken-chain");
    let mut forged = chain(4);
    forged[3].body.push(' ');
    stage.publish(forged).await.problem(400, "bad-link");
}

#[tokio::test]
async fn of_two_racing_publishers_exactly_one_wins() {
    let stage = Stage::new().await;
    let key = stage.key(Scope::Publish).await;
    stage.publish_to("notes", chain(1), &key).await;
    for version in 2..10u32 {
        let mut base = chain(1);
        let listed = stage.get("/api/migrations?app=notes", &key).await.json();
        let last = &listed["migrations"][version as usize - 2];
        let previous = last["digest"].as_str().unwrap().parse().unwrap();
        base.truncate(0);
        let mine = |who: &str| {
            let name = format!("{version:04}_{who}");
            vec![link(version, &name, Some(previous), &format!("CREATE TABLE {who}{version}(x);"))]
        };
        let (one, two) = tokio::join!(stage.publish_to("notes", mine("one"), &key), stage.publish_to("notes", mine("two"), &key),);
        let mut statuses = [one.status, two.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409], "{one:?} {two:?}");
        let lost = if one.status == 409 { one } else { two };
        let remedy = lost.json()["remedy"].as_str().unwrap().to_owned();
        assert!(remedy.contains("publish again"), "{remedy}");
    }
}

#[tokio::test]
async fn a_key_does_what_its_scope_says_and_every_write_is_in_the_audit() {
    let stage = Stage::new().await;
    let (read, operate) = (stage.key(Scope::Read).await, stage.key(Scope::Operate).await);
    let admin = stage.key(Scope::Admin).await;
    for key in [&read, &operate] {
        let refused = stage.publish_to("notes", chain(1), key).await;
        refused.problem(403, "wrong-scope");
    }
    assert_eq!(stage.publish_to("notes", chain(3), &admin).await.status, 200);
    let order = json!({ "app": "notes", "order": { "order": "apply_up_to", "version": 2 } });
    stage.put("/api/plan", &read, order.clone()).await.problem(403, "wrong-scope");
    let plan = stage.put("/api/plan", &operate, order).await.json();
    assert_eq!((&plan["pinned"], &plan["order"]["version"]), (&json!(true), &json!(2)));
    let beyond = json!({ "app": "notes", "order": { "order": "revert_down_to", "version": 9 } });
    stage.put("/api/plan", &operate, beyond).await.problem(400, "not-published");
    let nowhere = json!({ "app": "nowhere" });
    stage.put("/api/plan", &operate, nowhere).await.problem(404, "no-such-app");
    assert_eq!(stage.get("/api/plan?app=notes", &read).await.json(), plan);

    let audit = stage.get("/api/audit?limit=2", &read).await.json();
    let actions: Vec<_> = audit["entries"].as_array().unwrap().iter().map(|e| &e["action"]).collect();
    assert_eq!(actions, ["plan", "publish"]);
    let older = stage.get(&format!("/api/audit?before={}", audit["next"]), &read).await.json();
    assert_eq!(older["entries"][0]["action"], "key.create");
}

#[tokio::test]
async fn operators_see_who_is_behind_and_why() {
    let stage = Stage::new().await;
    stage.publish(chain(2)).await;
    let (device, key) = (stage.device("notes").await, stage.key(Scope::Read).await);
    stage.post("/api/state", &device, state(&[(1, 2), (2, 1)])).await;
    let mut failed = event(2, 1, "0002 init", 2, "failed", "failed");
    failed["failure"] = json!({
        "code": "sql_error", "class": "permanent", "message": "no such table",
        "remedy": { "who": "operator", "what": "publish a revision" },
    });
    let sent = stage.post("/api/migrations/status", &device, json!({ "reports": [failed] })).await;
    assert_eq!(sent.status, 200, "{sent:?}");

    let behind = stage.get("/api/clients?outdated=1&app=notes", &key).await;
    let behind: ClientsResponse = serde_json::from_slice(&behind.body).unwrap();
    assert_eq!(behind.clients.len(), 1);
    assert_eq!(behind.clients[0].state.client_id.to_string(), client_id(2));
    assert_eq!((behind.clients[0].pending, behind.clients[0].latest), (1, 2));

    let detail = stage.get(&format!("/api/clients/{}", client_id(2)), &key).await.json();
    assert_eq!(detail["migrations"][0]["failure"]["message"], "no such table");
    assert_eq!(detail["history"].as_array().unwrap().len(), 1);
    let listed = stage.get("/api/migrations?app=notes", &key).await.json();
    let counts: Vec<_> =
        listed["migrations"].as_array().unwrap().iter().map(|m| (m["completed"].as_u64().unwrap(), m["failed"].as_u64().unwrap())).collect();
    assert_eq!(counts, [(2, 0), (1, 1)]);
}
