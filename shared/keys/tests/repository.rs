//! What we sign, judged by a verifier that others wrote, and what we refuse.

use std::collections::{BTreeMap, BTreeSet};

use sigstore_tuf::TrustedMetadataSet;
use whimbrel_keys::{SigningKey, verify};
use whimbrel_shared::{
    ids::{AppName, ClientId},
    migration::{Link, TargetEntry},
    protocol::poll::{Order, Plan},
    tuf::{
        Document, Envelope, Pin, PublicKey, Role, RoleKeys, Root, RootError, SignedTargets, Snapshot, Time, Timestamp,
        fresh::{SnapshotMeta, TimestampMeta},
        plan::{PlanError, read, unsigned},
        root::{Roles, accept},
    },
};

const NOW_MS: i64 = 1_800_000_000_000;

fn key(n: u8) -> SigningKey {
    SigningKey::from_seed(&[n; 32])
}

fn app() -> AppName {
    "notes".parse().unwrap()
}

fn role(keys: &[u8], threshold: u32) -> RoleKeys {
    RoleKeys { keyids: keys.iter().map(|n| key(*n).public().id()).collect(), threshold }
}

/// Root keys 1, 2, 3 (two of them), publishers 11, 12 (both), online 21 and 22.
fn first_root() -> Root {
    let keys = [1, 2, 3, 11, 12, 21, 22].map(|n| key(n).public());
    Root {
        app: app(),
        version: 1,
        expires: Time::from_ms(NOW_MS + Role::Root.lasts_ms()),
        consistent_snapshot: true,
        keys: keys.iter().map(|k| (k.id(), *k)).collect(),
        roles: Roles { root: role(&[1, 2, 3], 2), targets: role(&[11, 12], 2), snapshot: role(&[21], 1), timestamp: role(&[22], 1) },
        plan: Some(role(&[22], 1)),
    }
}

fn sign<D: Document>(document: &D, keys: &[u8]) -> Vec<u8> {
    let mut envelope = Envelope::new(document).unwrap();
    for n in keys {
        let key = key(*n);
        let signature = key.sign(&envelope.payload());
        envelope.add(&key.public(), signature);
    }
    envelope.to_bytes()
}

fn targets(version: u64) -> SignedTargets {
    let body = br#"{"format":"whimbrel.migration/1"}"#;
    let entry = TargetEntry::new(body, Link::new("0001_init".parse().unwrap(), 1, None));
    SignedTargets {
        app: app(),
        version,
        expires: Time::from_ms(NOW_MS + Role::Targets.lasts_ms()),
        revert_floor: Some(1),
        targets: BTreeMap::from([(entry.path(), entry)]),
    }
}

fn fresh(version: u64, targets: &[u8], targets_version: u64) -> (Vec<u8>, Vec<u8>) {
    let expires = Time::from_ms(NOW_MS + Role::Snapshot.lasts_ms());
    let snapshot = Snapshot { app: app(), version, expires, meta: SnapshotMeta { targets: Pin::of(targets_version, targets) } };
    let snapshot = sign(&snapshot, &[21]);
    let timestamp = Timestamp { app: app(), version, expires, meta: TimestampMeta { snapshot: Pin::of(version, &snapshot) } };
    (snapshot, sign(&timestamp, &[22]))
}

#[test]
fn another_verifier_takes_what_is_signed_here_and_refuses_it_where_it_should() {
    let now = jiff::Timestamp::from_millisecond(NOW_MS).unwrap();
    let root = first_root();
    let mut trusted = TrustedMetadataSet::from_root(&sign(&root, &[1, 3])).unwrap();
    assert!(TrustedMetadataSet::from_root(&sign(&root, &[1])).is_err(), "one of two signatures");

    let mut second = root.clone();
    second.version = 2;
    second.roles.root = role(&[2, 3, 4], 2);
    second.keys.insert(key(4).public().id(), key(4).public());
    assert!(trusted.clone().update_root(&sign(&second, &[3, 4])).is_err(), "one of the old keys");
    trusted.update_root(&sign(&second, &[2, 3])).unwrap();

    let signed = sign(&targets(7), &[11, 12]);
    let (snapshot, timestamp) = fresh(5, &signed, 7);
    trusted.update_timestamp(&timestamp, now).unwrap();
    trusted.update_snapshot(&snapshot, now).unwrap();
    assert!(trusted.clone().update_targets(&sign(&targets(7), &[11]), now).is_err());
    let taken = trusted.update_targets(&signed, now).unwrap();
    assert_eq!(taken.version, 7);
    let later = jiff::Timestamp::from_millisecond(NOW_MS + Role::Timestamp.lasts_ms() + 1000).unwrap();
    assert!(trusted.check_timestamp_expired(later).is_err());
}

#[test]
fn a_root_follows_another_only_with_enough_of_the_old_and_of_the_new_keys() {
    let root = first_root();
    assert!(accept(&sign(&root, &[1, 2]), None, verify).is_ok());
    let refused = |root: &Root, keys: &[u8], trusted: Option<&Root>| accept(&sign(root, keys), trusted, verify).unwrap_err();
    assert!(matches!(refused(&root, &[1], None), RootError::TooFewSignatures { threshold: 2, .. }));
    assert!(matches!(refused(&root, &[1, 11], None), RootError::TooFewSignatures { .. }), "a publisher signs no roots");

    // All root keys change at once: both sets have to sign.
    let mut next = root.clone();
    next.version = 2;
    next.roles.root = role(&[4, 5], 2);
    next.keys.extend([4, 5].map(|n| (key(n).public().id(), key(n).public())));
    assert!(accept(&sign(&next, &[1, 2, 4, 5]), Some(&root), verify).is_ok());
    assert!(matches!(refused(&next, &[1, 2, 4], Some(&root)), RootError::TooFewSignatures { by: 2, .. }));
    assert!(matches!(refused(&next, &[1, 4, 5], Some(&root)), RootError::TooFewSignatures { by: 1, .. }));

    next.version = 3;
    assert!(matches!(refused(&next, &[1, 2, 4, 5], Some(&root)), RootError::OtherVersion { known: 1, found: 3 }));
    next.version = 2;
    next.app = "other".parse().unwrap();
    assert!(matches!(refused(&next, &[1, 2, 4, 5], Some(&root)), RootError::OtherApp { .. }));
}

#[test]
fn a_root_that_could_authorise_nothing_or_anybody_is_refused() {
    let refused = |change: fn(&mut Root)| {
        let mut root = first_root();
        change(&mut root);
        let error = accept(&sign(&root, &[1, 2, 3]), None, verify).unwrap_err();
        assert!(matches!(error, RootError::Unusable { .. }), "{error}");
    };
    refused(|r| r.roles.root.threshold = 0);
    refused(|r| r.roles.timestamp.threshold = 2);
    refused(|r| r.roles.targets.keyids = BTreeSet::new());
    refused(|r| r.consistent_snapshot = false);
    refused(|r| {
        r.keys.remove(&key(21).public().id());
    });
    refused(|r| {
        let wrong: PublicKey = key(99).public();
        r.keys.insert(key(21).public().id(), wrong);
    });
    refused(|r| r.plan = Some(RoleKeys::default()));
}

#[test]
fn a_signature_counts_once_and_only_over_the_same_bytes() {
    let root = first_root();
    let mut envelope = Envelope::new(&targets(1)).unwrap();
    let (one, two) = (key(11), key(12));
    for _ in 0..2 {
        let signature = one.sign(&envelope.payload());
        envelope.add(&one.public(), signature);
    }
    assert_eq!(root.signed_by(Role::Targets, &envelope, verify).len(), 1);
    let other = Envelope::new(&targets(2)).unwrap();
    envelope.add(&two.public(), two.sign(&other.payload()));
    assert_eq!(root.signed_by(Role::Targets, &envelope, verify).len(), 1);
    let signature = two.sign(&envelope.payload());
    envelope.add(&two.public(), signature);
    root.authorises(&envelope, &targets(1), verify).unwrap();
    // What a reader does not know is signed all the same.
    let text = String::from_utf8(envelope.to_bytes()).unwrap();
    let more = text.replace("\"app\":\"notes\"", "\"app\":\"notes\",\"new\":1");
    let (changed, document) = Envelope::read::<SignedTargets>(more.as_bytes()).unwrap();
    assert!(root.authorises(&changed, &document, verify).is_err());
    let twice = text.replacen("\"signatures\":[", "\"signatures\":[SIG,", 1);
    let first: String = text.split_once('[').unwrap().1.split_once('}').unwrap().0.to_owned() + "}";
    let (twice, _) = Envelope::read::<SignedTargets>(twice.replace("SIG", &first).as_bytes()).unwrap();
    assert_eq!((twice.signatures().len(), root.signed_by(Role::Targets, &twice, verify).len()), (3, 2));
}

#[test]
fn a_plan_is_believed_of_the_plans_key_alone_and_for_its_own_app() {
    let plan = Plan { client_id: ClientId::from_dice(1), app: app(), plan_seq: 7, order: Order::ApplyUpTo { version: 3 } };
    let signed_by = |n: u8, plan: &Plan| {
        let mut envelope = unsigned(plan);
        let signature = key(n).sign(&envelope.payload());
        envelope.add(&key(n).public(), signature);
        envelope
    };
    let mut root = first_root();
    root.plan = Some(role(&[31], 1));
    root.keys.insert(key(31).public().id(), key(31).public());
    root.check().unwrap();
    assert_eq!(read(&root, &signed_by(31, &plan), verify).unwrap(), plan);
    assert_eq!(signed_by(31, &plan).to_bytes(), signed_by(31, &plan).to_bytes());
    for other in [1, 11, 21, 22] {
        assert!(matches!(read(&root, &signed_by(other, &plan), verify), Err(PlanError::NotSigned { signed: 0, .. })), "key {other}");
    }
    let foreign = Plan { app: "other".parse().unwrap(), ..plan.clone() };
    assert!(matches!(read(&root, &signed_by(31, &foreign), verify), Err(PlanError::OtherApp { .. })));
    // What the key signed as something else is no plan.
    let mut document = Envelope::new(&targets(1)).unwrap();
    let signature = key(31).sign(&document.payload());
    document.add(&key(31).public(), signature);
    assert!(matches!(read(&root, &document, verify), Err(PlanError::Unreadable(_))));
    // Another database's plan under this one's name.
    let text = String::from_utf8(signed_by(31, &plan).to_bytes()).unwrap();
    let moved = text.replace(&plan.client_id.to_string(), &ClientId::from_dice(2).to_string());
    assert!(matches!(read(&root, &serde_json::from_str(&moved).unwrap(), verify), Err(PlanError::NotSigned { .. })));
    root.plan = None;
    assert!(matches!(read(&root, &signed_by(31, &plan), verify), Err(PlanError::NoKeys { by: 1 })));
}

#[test]
fn a_document_of_another_role_or_another_tuf_is_no_document() {
    let bytes = sign(&targets(1), &[11]);
    assert!(Envelope::read::<Root>(&bytes).unwrap_err().to_string().contains("\"targets\""));
    let text = String::from_utf8(bytes).unwrap();
    assert!(Envelope::read::<SignedTargets>(text.replace("1.0.31", "2.0.0").as_bytes()).unwrap_err().to_string().contains("2.0.0"));
    assert!(Envelope::read::<SignedTargets>(text.replace("\"version\":1}", "\"version\":1.5}").as_bytes()).is_err());
    let long = vec![b' '; Role::Targets.max_bytes() + 1];
    assert!(Envelope::read::<SignedTargets>(&long).unwrap_err().to_string().contains("5000000"));
}
