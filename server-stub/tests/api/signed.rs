//! Signed repositories: what the server takes, what it signs, and what a verifier of others says of it.

use std::collections::BTreeMap;

use serde_json::json;
use sigstore_tuf::TrustedMetadataSet;
use whimbrel_keys::SigningKey;
use whimbrel_server::secrets::Scope;
use whimbrel_shared::{
    migration::Targets,
    protocol::{
        poll::PollResponse,
        publish::{OnlineKeys, PublishLink, PublishRequest, RootRequest, TrustResponse},
    },
    tuf::{Document, Envelope, KeyId, PublicKey, RoleKeys, Root, SignedTargets, Time, Timestamp, plan, root::Roles, targets::hashed_path},
};

use crate::support::{Reply, Stage, chain};

/// 2100: whatever the clock of this machine says.
const LATE_MS: i64 = 4_102_444_800_000;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn signed<D: Document>(document: &D, keys: &[u8]) -> Envelope {
    let mut envelope = Envelope::new(document).unwrap();
    for n in keys {
        let signature = key(*n).sign(&envelope.payload());
        envelope.add(&key(*n).public(), signature);
    }
    envelope
}

/// Root keys 1 and 2 (one of them), publishers 8 and 9 (both).
fn root(version: u64, online: &OnlineKeys) -> Root {
    let ids = |keys: &[PublicKey], threshold| RoleKeys { keyids: keys.iter().map(PublicKey::id).collect(), threshold };
    let (roots, publishers) = ([1, 2].map(|n| key(n).public()), [8, 9].map(|n| key(n).public()));
    let keys: BTreeMap<KeyId, PublicKey> =
        roots.into_iter().chain(publishers).chain([online.snapshot, online.timestamp, online.plan]).map(|k| (k.id(), k)).collect();
    let roles =
        Roles { root: ids(&roots, 1), targets: ids(&publishers, 2), snapshot: ids(&[online.snapshot], 1), timestamp: ids(&[online.timestamp], 1) };
    let expires = Time::from_ms(LATE_MS);
    Root { app: "notes".parse().unwrap(), version, expires, consistent_snapshot: true, keys, roles, plan: Some(ids(&[online.plan], 1)) }
}

fn targets(version: u64, links: &[PublishLink]) -> SignedTargets {
    let targets = links.iter().map(|l| (l.target.path(), l.target.clone())).collect();
    SignedTargets { app: "notes".parse().unwrap(), version, expires: Time::from_ms(LATE_MS), revert_floor: None, targets }
}

impl Stage {
    async fn online(&self, key: &str) -> OnlineKeys {
        let trust: TrustResponse = serde_json::from_slice(&self.get("/api/trust/notes", key).await.body).unwrap();
        trust.online
    }

    async fn root(&self, api_key: &str, root: Envelope) -> Reply {
        self.post("/api/roots", api_key, serde_json::to_value(RootRequest { root }).unwrap()).await
    }

    async fn publish_signed(&self, api_key: &str, links: Vec<PublishLink>, signed: Option<Envelope>) -> Reply {
        let request = PublishRequest { app: "notes".parse().unwrap(), links, signed };
        self.post("/api/migrations", api_key, serde_json::to_value(request).unwrap()).await
    }

    /// Everything a device reads, as another verifier judges it. Answers the paths of the targets.
    async fn verified(&self, device: &str) -> Vec<String> {
        let get = async |file: &str| {
            let reply = self.get(&format!("/repository/notes/{file}"), device).await;
            (reply.status == 200).then_some(reply.body)
        };
        let now = jiff::Timestamp::now();
        let mut trusted = TrustedMetadataSet::from_root(&get("1.root.json").await.unwrap()).unwrap();
        let mut next = 2;
        while let Some(bytes) = get(&format!("{next}.root.json")).await {
            trusted.update_root(&bytes).unwrap();
            next += 1;
        }
        trusted.update_timestamp(&get("timestamp.json").await.unwrap(), now).unwrap();
        let version = trusted.timestamp().unwrap().snapshot_meta().unwrap().version;
        trusted.update_snapshot(&get(&format!("{version}.snapshot.json")).await.unwrap(), now).unwrap();
        let version = trusted.snapshot().unwrap().meta["targets.json"].version;
        let bytes = get(&format!("{version}.targets.json")).await.unwrap();
        trusted.update_targets(&bytes, now).unwrap().targets.keys().cloned().collect()
    }
}

#[tokio::test]
async fn a_signed_chain_is_served_so_that_another_verifier_takes_it() {
    let stage = Stage::new().await;
    let api_key = stage.key(Scope::Publish).await;
    let device = stage.device("notes").await;
    assert_eq!(stage.publish(chain(1)).await.status, 200, "nothing is signed before the first root");
    let online = stage.online(&api_key).await;
    let first = signed(&root(1, &online), &[1]);
    assert_eq!(stage.root(&api_key, first.clone()).await.status, 200);
    assert_eq!(stage.root(&api_key, first).await.status, 200, "sent twice is there once");
    let links = chain(3);
    let reply = stage.publish_signed(&api_key, links.clone(), Some(signed(&targets(2, &links), &[8, 9]))).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    assert_eq!(stage.verified(&device).await.len(), 3);

    // The root moves on, and everything below it is signed anew.
    assert_eq!(stage.root(&api_key, signed(&root(2, &online), &[2])).await.status, 200);
    assert_eq!(stage.verified(&device).await.len(), 3);

    // Names that never change are kept for ever, the one that does is asked for each time.
    let forever = stage.get("/repository/notes/2.root.json", &device).await;
    assert_eq!(forever.headers["cache-control"], "private, max-age=31536000, immutable");
    let entry = &links[2].target;
    let body = stage.get(&format!("/repository/notes/targets/{}", hashed_path(&entry.digest(), &entry.path()).replace(' ', "%20")), &device).await;
    assert_eq!((body.status, body.body.as_slice()), (200, links[2].body.as_bytes()));
    assert_eq!(body.headers["cache-control"], "private, max-age=31536000, immutable");
    let other = hashed_path(&links[0].target.digest(), &entry.path()).replace(' ', "%20");
    stage.get(&format!("/repository/notes/targets/{other}"), &device).await.problem(404, "no-such-target");
    assert_eq!(stage.get("/repository/notes/timestamp.json", &device).await.headers["cache-control"], "no-cache");
    stage.get("/repository/notes/3.root.json", &device).await.problem(404, "no-such-metadata");
    // Who trusts nobody reads the same chain.
    let plain: Targets = serde_json::from_slice(&stage.get("/repository/notes/targets.json", &device).await.body).unwrap();
    assert_eq!((plain.version, plain.targets.len()), (2, 3));
}

#[tokio::test]
async fn an_idle_poll_carries_the_timestamp_and_is_304() {
    let stage = Stage::new().await;
    let api_key = stage.key(Scope::Publish).await;
    let device = stage.device("notes").await;
    let online = stage.online(&api_key).await;
    stage.root(&api_key, signed(&root(1, &online), &[1])).await;
    let poll = async || -> (String, PollResponse) {
        let reply = stage.get("/api/poll", &device).await;
        (reply.headers["etag"].clone(), serde_json::from_slice(&reply.body).unwrap())
    };
    let app = "notes".parse().unwrap();
    assert_eq!(poll().await.1.repository[&app].signed, None, "a root alone says nothing about migrations");
    let links = chain(1);
    stage.publish_signed(&api_key, links.clone(), Some(signed(&targets(1, &links), &[8, 9]))).await;
    let state = stage.post("/api/state", &device, crate::support::state(&[(1, 0)])).await;
    assert_eq!(state.status, 200, "{state:?}");
    let (etag, response) = poll().await;
    let plans: Vec<_> = response.signed_plans.iter().map(|plan| plan::read(&root(1, &online), plan, whimbrel_keys::verify).unwrap()).collect();
    assert_eq!((plans.len(), &plans), (1, &response.plans));
    let head = response.repository[&app].signed.clone().unwrap();
    assert_eq!(head.root_version, 1);
    assert_eq!(head.timestamp.as_bytes(), stage.get("/repository/notes/timestamp.json", &device).await.body);
    let headers = format!("Authorization: Bearer {device}\r\nIf-None-Match: {etag}\r\n");
    assert_eq!(stage.ask("GET", "/api/poll", &headers, b"").await.status, 304);
    stage.root(&api_key, signed(&root(2, &online), &[1])).await;
    let (_, response) = poll().await;
    let again = response.repository[&app].signed.clone().unwrap();
    assert_eq!(again.root_version, 2);
    let version = |text: &str| Envelope::read::<Timestamp>(text.as_bytes()).unwrap().1.version;
    assert!(version(&again.timestamp) > version(&head.timestamp));
}

#[tokio::test]
async fn what_the_root_does_not_allow_is_refused_and_changes_nothing() {
    let stage = Stage::new().await;
    let api_key = stage.key(Scope::Publish).await;
    let device = stage.device("notes").await;
    let online = stage.online(&api_key).await;
    let links = chain(2);
    let both = |targets: &SignedTargets| Some(signed(targets, &[8, 9]));
    stage.publish_signed(&api_key, links.clone(), both(&targets(1, &links))).await.problem(409, "no-root");

    let mut elsewhere = online;
    elsewhere.timestamp = key(77).public();
    stage.root(&api_key, signed(&root(1, &elsewhere), &[1])).await.problem(409, "other-server");
    stage.root(&api_key, signed(&root(1, &online), &[8])).await.problem(403, "not-authorised");
    stage.root(&api_key, signed(&root(2, &online), &[1])).await.problem(409, "signed-race");
    let mut old = root(1, &online);
    old.expires = Time::from_ms(1_000);
    stage.root(&api_key, signed(&old, &[1])).await.problem(403, "not-authorised");
    let reader = stage.key(Scope::Read).await;
    stage.root(&reader, signed(&root(1, &online), &[1])).await.problem(403, "wrong-scope");
    assert_eq!(stage.root(&api_key, signed(&root(1, &online), &[1])).await.status, 200);
    // A stranger's root, as good as it is by itself, does not follow.
    let mut stranger = root(2, &online);
    let theirs = key(66).public();
    stranger.keys.insert(theirs.id(), theirs);
    stranger.roles.root = RoleKeys { keyids: [theirs.id()].into(), threshold: 1 };
    stage.root(&api_key, signed(&stranger, &[66])).await.problem(403, "not-authorised");

    assert_eq!(stage.publish_signed(&api_key, links.clone(), both(&targets(1, &links))).await.status, 200);
    let before = stage.get("/repository/notes/timestamp.json", &device).await.body;
    let more = chain(3);
    let refused = async |signed: Option<Envelope>, status: u16, kind: &str| {
        let detail = stage.publish_signed(&api_key, more.clone(), signed).await.problem(status, kind);
        assert_eq!(stage.get("/repository/notes/timestamp.json", &device).await.body, before, "{detail}");
        let plain: Targets = serde_json::from_slice(&stage.get("/repository/notes/targets.json", &device).await.body).unwrap();
        assert_eq!(plain.targets.len(), 2, "{detail}");
        detail
    };
    refused(None, 409, "not-signed").await;
    let detail = refused(Some(signed(&targets(2, &more), &[8])), 403, "not-authorised").await;
    assert!(detail.contains("1 of the 2"), "{detail}");
    refused(Some(signed(&targets(2, &more), &[8, 1, 2])), 403, "not-authorised").await;
    refused(both(&targets(1, &more)), 409, "signed-race").await;
    refused(both(&targets(2, &links)), 409, "signed-race").await;
    refused(both(&targets(2, &chain(4))), 409, "signed-race").await;
    refused(both(&SignedTargets { expires: Time::from_ms(1_000), ..targets(2, &more) }), 403, "not-authorised").await;
    refused(both(&SignedTargets { app: "other".parse().unwrap(), ..targets(2, &more) }), 403, "not-authorised").await;
    refused(both(&SignedTargets { revert_floor: Some(4), ..targets(2, &more) }), 400, "bad-floor").await;
    refused(Some(signed(&root(2, &online), &[1])), 400, "bad-document").await;
    // Over other bytes than those that were sent.
    let mut other = targets(2, &more);
    let path = more[2].target.path();
    other.targets.get_mut(&path).unwrap().length += 1;
    refused(both(&other), 409, "signed-race").await;
    assert_eq!(stage.publish_signed(&api_key, more.clone(), both(&targets(2, &more))).await.status, 200);
    assert_eq!(stage.verified(&device).await.len(), 3);
}

#[tokio::test]
async fn a_plan_reverts_no_further_than_the_publisher_signed() {
    let stage = Stage::new().await;
    let api_key = stage.key(Scope::Publish).await;
    let operator = stage.key(Scope::Operate).await;
    let online = stage.online(&api_key).await;
    stage.root(&api_key, signed(&root(1, &online), &[1])).await;
    let links = chain(3);
    let publish = async |version: u64, floor: Option<u32>, links: &[PublishLink], new: &[PublishLink]| {
        let targets = SignedTargets { revert_floor: floor, ..targets(version, links) };
        assert_eq!(stage.publish_signed(&api_key, new.to_vec(), Some(signed(&targets, &[8, 9]))).await.status, 200);
    };
    let revert = async |version: u32| {
        stage.put("/api/plan", &operator, json!({"app": "notes", "order": {"order": "revert_down_to", "version": version}})).await
    };
    publish(1, None, &links, &links).await;
    assert!(revert(2).await.problem(403, "below-floor").contains("revert nothing"));
    publish(2, Some(2), &links, &[]).await;
    assert!(revert(1).await.problem(403, "below-floor").contains("down to version 2"));
    assert_eq!(revert(2).await.status, 200);
}

#[tokio::test]
async fn a_revoked_publisher_is_an_alarm_until_somebody_signs_again() {
    let stage = Stage::new().await;
    let api_key = stage.key(Scope::Publish).await;
    let device = stage.device("notes").await;
    let online = stage.online(&api_key).await;
    stage.root(&api_key, signed(&root(1, &online), &[1])).await;
    let links = chain(1);
    stage.publish_signed(&api_key, links.clone(), Some(signed(&targets(1, &links), &[8, 9]))).await;
    let mut next = root(2, &online);
    let (gone, comes) = (key(9).public().id(), key(10).public());
    next.keys.remove(&gone);
    next.keys.insert(comes.id(), comes);
    next.roles.targets.keyids = [key(8).public().id(), comes.id()].into();
    let trust: TrustResponse = serde_json::from_slice(&stage.root(&api_key, signed(&next, &[1])).await.body).unwrap();
    assert!(trust.alarms.iter().any(|a| a.contains("1 of the 2") && a.contains("--renew")), "{:?}", trust.alarms);
    let again = stage.publish_signed(&api_key, Vec::new(), Some(signed(&targets(2, &links), &[8, 10]))).await;
    assert_eq!(again.json()["published"], json!([]), "{again:?}");
    let trust: TrustResponse = serde_json::from_slice(&stage.get("/api/trust/notes", &api_key).await.body).unwrap();
    assert_eq!((trust.alarms, trust.expires["targets"].version), (Vec::new(), 2));
    assert_eq!(stage.verified(&device).await.len(), 1);
}
