//! A TUF repository that a test signs as it likes, well or badly: keys in hand, files in memory.

use std::collections::BTreeMap;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use whimbrel_shared::{
    manifest::Manifest,
    migration::{FORMAT, Link, Migration, TargetEntry},
};

/// The four roles.
pub const ROLES: [&str; 4] = ["root", "targets", "snapshot", "timestamp"];
/// A day, in milliseconds.
pub const DAY_MS: i64 = 86_400_000;

/// A key pair.
pub struct Key {
    pair: Ed25519KeyPair,
    /// Its id.
    pub id: String,
    public: Value,
}

impl Key {
    /// A new one.
    pub fn new() -> Self {
        let pair = Ed25519KeyPair::generate().expect("a key can be made");
        let public = json!({"keytype": "ed25519", "scheme": "ed25519", "keyval": {"public": hex(pair.public_key().as_ref())}});
        let id = hex(&Sha256::digest(canonical(&public)));
        Self { pair, id, public }
    }
}

impl Default for Key {
    fn default() -> Self {
        Self::new()
    }
}

/// A role that targets delegate to.
pub struct Delegate {
    /// Its name.
    pub name: String,
    /// Patterns of paths.
    pub paths: Vec<String>,
    /// Its key.
    pub key: Key,
    /// Its targets, by path.
    pub targets: BTreeMap<String, Value>,
    /// When it expires.
    pub expires_ms: i64,
}

/// A repository. Fields may be changed at will; `sign_*` make files of them.
pub struct TufRepository {
    /// The app that documents name.
    pub app: Option<String>,
    /// Who signs for each role.
    pub keys: BTreeMap<String, Vec<Key>>,
    /// How many have to.
    pub thresholds: BTreeMap<String, usize>,
    /// The version of each role's newest file.
    pub versions: BTreeMap<String, u64>,
    /// When each role's next file expires, in milliseconds since 1970.
    pub expires_ms: BTreeMap<String, i64>,
    /// Targets by path: `length`, `hashes`, `custom`.
    pub targets: BTreeMap<String, Value>,
    /// Who else signs targets.
    pub delegates: Vec<Delegate>,
    /// More members of the signed targets.
    pub extra: BTreeMap<String, Value>,
    /// What is served, by its name in the repository; targets below `targets/`.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl TufRepository {
    /// One without targets, whose root lasts a year and the rest a month from `now_ms`.
    pub fn new(app: Option<&str>, now_ms: i64) -> Self {
        let mut new = Self {
            app: app.map(str::to_owned),
            keys: ROLES.iter().map(|role| ((*role).to_owned(), vec![Key::new()])).collect(),
            thresholds: ROLES.iter().map(|role| ((*role).to_owned(), 1)).collect(),
            versions: BTreeMap::new(),
            expires_ms: ROLES.iter().map(|role| ((*role).to_owned(), now_ms + if *role == "root" { 3650 } else { 30 } * DAY_MS)).collect(),
            targets: BTreeMap::new(),
            delegates: Vec::new(),
            extra: BTreeMap::new(),
            files: BTreeMap::new(),
        };
        new.sign_root(&[]);
        new.sign_targets();
        new
    }

    /// The newest root.
    pub fn root(&self) -> Vec<u8> {
        self.files[&format!("{}.root.json", self.versions["root"])].clone()
    }

    /// Gives a role a new key in place of its old ones, with a new root that says so. The other files stay as they are.
    pub fn rotate(&mut self, role: &str) {
        let old = self.keys.insert(role.to_owned(), vec![Key::new()]).expect("it is a role");
        self.sign_root(if role == "root" { &old } else { &[] });
    }

    /// The next root, signed by its own keys and by `also`.
    pub fn sign_root(&mut self, also: &[Key]) {
        let version = self.next("root");
        let keys: BTreeMap<_, _> = self.keys.values().flatten().map(|key| (key.id.clone(), key.public.clone())).collect();
        let role = |name: &&str| {
            let ids: Vec<_> = self.keys[*name].iter().map(|key| key.id.clone()).collect();
            ((*name).to_owned(), json!({"keyids": ids, "threshold": self.thresholds[*name]}))
        };
        let roles: BTreeMap<_, _> = ROLES.iter().map(role).collect();
        let signed = self.document("root", version, json!({"consistent_snapshot": true, "keys": keys, "roles": roles}));
        let signers: Vec<&Key> = self.keys["root"].iter().chain(also).collect();
        let bytes = seal(&signed, &signers);
        self.files.insert(format!("{version}.root.json"), bytes);
    }

    /// The next targets, and snapshot and timestamp after it.
    pub fn sign_targets(&mut self) {
        let version = self.next("targets");
        let mut members = json!({"targets": self.targets});
        for (name, value) in &self.extra {
            members[name] = value.clone();
        }
        if !self.delegates.is_empty() {
            let keys: BTreeMap<_, _> = self.delegates.iter().map(|d| (d.key.id.clone(), d.key.public.clone())).collect();
            let role = |d: &Delegate| json!({"name": d.name, "keyids": [d.key.id], "threshold": 1, "terminating": false, "paths": d.paths});
            members["delegations"] = json!({"keys": keys, "roles": self.delegates.iter().map(role).collect::<Vec<_>>()});
        }
        let signed = self.document("targets", version, members);
        let bytes = self.seal("targets", &signed);
        self.files.insert(format!("{version}.targets.json"), bytes);
        for delegate in &self.delegates {
            let signed = json!({
                "_type": "targets", "spec_version": "1.0.31", "version": 1, "expires": time(delegate.expires_ms), "targets": delegate.targets,
            });
            self.files.insert(format!("1.{}.json", delegate.name), seal(&signed, &[&delegate.key]));
        }
        self.sign_snapshot();
    }

    /// The next snapshot, and timestamp after it.
    pub fn sign_snapshot(&mut self) {
        let version = self.next("snapshot");
        let targets = self.versions["targets"];
        let mut meta = BTreeMap::from([("targets.json".to_owned(), pin(targets, &self.files[&format!("{targets}.targets.json")]))]);
        for delegate in &self.delegates {
            meta.insert(format!("{}.json", delegate.name), json!({"version": 1}));
        }
        let signed = self.document("snapshot", version, json!({"meta": meta}));
        let bytes = self.seal("snapshot", &signed);
        self.files.insert(format!("{version}.snapshot.json"), bytes);
        self.sign_timestamp();
    }

    /// The next timestamp.
    pub fn sign_timestamp(&mut self) {
        let version = self.next("timestamp");
        let snapshot = self.versions["snapshot"];
        let meta = json!({"snapshot.json": pin(snapshot, &self.files[&format!("{snapshot}.snapshot.json")])});
        let signed = self.document("timestamp", version, json!({"meta": meta}));
        let bytes = self.seal("timestamp", &signed);
        self.files.insert("timestamp.json".to_owned(), bytes);
    }

    /// Adds a target file; `sign_targets` lists it.
    pub fn add(&mut self, path: &str, body: &[u8], custom: Option<Value>) {
        let (entry, stored) = target(path, body, custom);
        self.targets.insert(path.to_owned(), entry);
        self.files.insert(format!("targets/{stored}"), body.to_vec());
    }

    /// Adds the next migration of a chain, `CREATE TABLE t{version}`, and returns its entry.
    pub fn add_migration(&mut self) -> TargetEntry {
        let entries = self.targets.values().map(|v| serde_json::from_value::<TargetEntry>(v.clone()).expect("they are migrations"));
        let last = entries.max_by_key(|entry| entry.custom.version);
        let version = last.as_ref().map_or(0, |entry| entry.custom.version) + 1;
        let migration = Migration {
            format: FORMAT.to_owned(),
            name: format!("{version:04}_t{version}").parse().expect("it is a name"),
            manifest: Manifest::default(),
            down: None,
            files: BTreeMap::from([("up.sql".to_owned(), format!("CREATE TABLE t{version}(x);"))]),
        };
        let body = migration.to_bytes();
        let entry = TargetEntry::new(&body, Link::new(migration.name, version, last.map(|last| last.digest())));
        self.add(&entry.path(), &body, Some(serde_json::to_value(&entry.custom).expect("links have text keys")));
        entry
    }

    /// Signs a document with a role's keys.
    pub fn seal(&self, role: &str, signed: &Value) -> Vec<u8> {
        seal(signed, &self.keys[role].iter().collect::<Vec<_>>())
    }

    fn next(&mut self, role: &str) -> u64 {
        let version = self.versions.entry(role.to_owned()).or_default();
        *version += 1;
        *version
    }

    fn document(&self, role: &str, version: u64, members: Value) -> Value {
        let mut signed = json!({"_type": role, "spec_version": "1.0.31", "version": version, "expires": time(self.expires_ms[role])});
        if let Some(app) = &self.app {
            signed["app"] = app.clone().into();
        }
        for (name, value) in members.as_object().into_iter().flatten() {
            signed[name] = value.clone();
        }
        signed
    }
}

/// A target's entry, and the name that it is stored under.
pub fn target(path: &str, body: &[u8], custom: Option<Value>) -> (Value, String) {
    let hash = hex(&Sha256::digest(body));
    let stored = match path.rsplit_once('/') {
        Some((folder, name)) => format!("{folder}/{hash}.{name}"),
        None => format!("{hash}.{path}"),
    };
    let mut entry = json!({"length": body.len(), "hashes": {"sha256": hash}});
    if let Some(custom) = custom {
        entry["custom"] = custom;
    }
    (entry, stored)
}

/// `signed` with a signature of each key.
pub fn seal(signed: &Value, keys: &[&Key]) -> Vec<u8> {
    let payload = canonical(signed);
    let one = |key: &&Key| json!({"keyid": key.id, "sig": hex(key.pair.sign(&payload).as_ref())});
    json!({"signed": signed, "signatures": keys.iter().map(one).collect::<Vec<_>>()}).to_string().into_bytes()
}

fn pin(version: u64, bytes: &[u8]) -> Value {
    json!({"version": version, "length": bytes.len(), "hashes": {"sha256": hex(&Sha256::digest(bytes))}})
}

/// RFC 3339, in whole seconds.
fn time(ms: i64) -> String {
    let (days, seconds) = (ms.div_euclid(DAY_MS), ms.rem_euclid(DAY_MS) / 1000);
    // Days to a date: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", civil_from_days.
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let doe = z.rem_euclid(146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{:02}T{:02}:{:02}:{:02}Z", doy - (153 * mp + 2) / 5 + 1, seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// Canonical JSON: keys in order, nothing between tokens, only `"` and `\` escaped.
fn canonical(value: &Value) -> Vec<u8> {
    fn text(text: &str) -> String {
        format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
    }
    match value {
        Value::String(s) => text(s).into_bytes(),
        Value::Array(items) => [b"[".to_vec(), items.iter().map(canonical).collect::<Vec<_>>().join(&b','), b"]".to_vec()].concat(),
        Value::Object(members) => {
            let sorted: BTreeMap<_, _> = members.iter().collect();
            let one = |(name, value): (&String, &Value)| [text(name).into_bytes(), b":".to_vec(), canonical(value)].concat();
            [b"{".to_vec(), sorted.into_iter().map(one).collect::<Vec<_>>().join(&b','), b"}".to_vec()].concat()
        }
        plain => plain.to_string().into_bytes(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
