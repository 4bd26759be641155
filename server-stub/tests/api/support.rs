//! A server in a temporary folder, and the smallest HTTP/1.1 client that can ask it.

use std::{collections::BTreeMap, future::Future, net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use whimbrel_server::{
    Config, Keep, Server,
    secrets::{Kind, Scope, Secret},
    serve,
    server::StoreAt,
    store::{NewKey, NewToken, Store, sqlite::SqliteStore},
};
use whimbrel_shared::{
    ids::Digest,
    manifest::Manifest,
    migration::{FORMAT, Link, Migration, TargetEntry},
    protocol::publish::{PublishLink, PublishRequest, SeedQueries},
};

/// Longest that anything here waits.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

/// A running server with one key of each scope.
pub(crate) struct Stage {
    pub(crate) addr: SocketAddr,
    server: Server,
    store: SqliteStore,
    _folder: TempDir,
}

impl Stage {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whimbrel.db");
        let config = Config { listen: "127.0.0.1:0".parse().unwrap(), store: StoreAt::Sqlite(path.clone()), keep: Keep::default(), keys: None };
        let server = serve(config).await.unwrap();
        Self { addr: server.addr(), server, store: SqliteStore::open(&path).unwrap(), _folder: folder }
    }

    pub(crate) async fn stop(self) -> SqliteStore {
        self.server.stop().await.unwrap();
        self.store
    }

    pub(crate) async fn key(&self, scope: Scope) -> String {
        let secret = Secret::new(Kind::ApiKey);
        let key = NewKey { name: format!("{}-{}", scope.as_str(), secret.digest().short()), hash: secret.digest(), scope, now_ms: 0 };
        self.store.create_key(key).await.unwrap();
        secret.reveal().to_owned()
    }

    pub(crate) async fn token(&self, app: &str, uses: u32) -> String {
        let secret = Secret::new(Kind::Enrolment);
        let token =
            NewToken { hash: secret.digest(), app: app.parse().unwrap(), space: Default::default(), uses, now_ms: 0, expires_at_ms: i64::MAX };
        self.store.create_token(token).await.unwrap();
        secret.reveal().to_owned()
    }

    /// A device token of a new device.
    pub(crate) async fn device(&self, app: &str) -> String {
        let token = self.token(app, 1).await;
        let enrolled = self.post("/api/enroll", "", json!({ "token": token })).await;
        assert_eq!(enrolled.status, 200, "{enrolled:?}");
        enrolled.json()["device_token"].as_str().unwrap().to_owned()
    }

    pub(crate) async fn publish(&self, links: Vec<PublishLink>) -> Reply {
        let key = self.key(Scope::Publish).await;
        self.publish_to("notes", links, &key).await
    }

    pub(crate) async fn publish_to(&self, app: &str, links: Vec<PublishLink>, key: &str) -> Reply {
        let request = PublishRequest { app: app.parse().unwrap(), links, signed: None };
        let body = serde_json::to_value(request).unwrap();
        self.post("/api/migrations", key, body).await
    }

    pub(crate) async fn get(&self, path: &str, secret: &str) -> Reply {
        self.ask("GET", path, &who(secret), b"").await
    }

    pub(crate) async fn post(&self, path: &str, secret: &str, body: Value) -> Reply {
        let body = serde_json::to_vec(&body).unwrap();
        self.ask("POST", path, &who(secret), &body).await
    }

    pub(crate) async fn put(&self, path: &str, secret: &str, body: Value) -> Reply {
        let body = serde_json::to_vec(&body).unwrap();
        self.ask("PUT", path, &who(secret), &body).await
    }

    /// One request on its own connection. `headers` are whole lines.
    pub(crate) async fn ask(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Reply {
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n", body.len());
        let talk = async {
            let mut stream = TcpStream::connect(self.addr).await.unwrap();
            stream.write_all(head.as_bytes()).await.unwrap();
            // A server that answers early may close before it read all.
            let _ = stream.write_all(body).await;
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer).await;
            answer
        };
        let answer = within(talk).await;
        Reply::parse(&answer).unwrap_or_else(|| panic!("no answer to {method} {path}: {:?}", String::from_utf8_lossy(&answer)))
    }
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
}

impl Reply {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|w| w == b"\r\n\r\n")?;
        let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
        let mut lines = head.lines();
        let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
        let headers = lines.filter_map(|l| l.split_once(": ")).map(|(name, value)| (name.to_lowercase(), value.to_owned())).collect();
        Some(Self { status, headers, body: bytes[end + 4..].to_vec() })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {self:?}"))
    }

    /// Asserts that this is a whole problem document of that kind, and gives its detail.
    pub(crate) fn problem(&self, status: u16, kind: &str) -> String {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let problem = self.json();
        assert_eq!(problem["type"], format!("/problems/{kind}"), "{problem}");
        assert_eq!(problem["status"], status);
        for field in ["title", "detail", "remedy"] {
            assert!(!problem[field].as_str().unwrap().is_empty(), "{problem}");
        }
        problem["detail"].as_str().unwrap().to_owned()
    }
}

fn who(secret: &str) -> String {
    match Kind::of(secret) {
        Some(Kind::ApiKey) => format!("X-API-Key: {secret}\r\n"),
        Some(Kind::Device | Kind::Enrolment) => format!("Authorization: Bearer {secret}\r\n"),
        None => String::new(),
    }
}

/// Fails instead of hanging.
pub(crate) async fn within<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.expect("it took too long")
}

/// Links 1..=n, each one table.
pub(crate) fn chain(n: u32) -> Vec<PublishLink> {
    let mut links: Vec<PublishLink> = Vec::new();
    for version in 1..=n {
        let previous = links.last().map(|l| l.target.digest());
        let sql = format!("CREATE TABLE t{version}(x);");
        links.push(link(version, &format!("{version:04} init"), previous, &sql));
    }
    links
}

pub(crate) fn link(version: u32, name: &str, previous: Option<Digest>, sql: &str) -> PublishLink {
    let migration = Migration {
        format: FORMAT.to_owned(),
        name: name.parse().unwrap(),
        manifest: Manifest::default(),
        down: None,
        files: BTreeMap::from([("up.sql".to_owned(), sql.to_owned())]),
    };
    let body = String::from_utf8(migration.to_bytes()).unwrap();
    let custom = Link::new(migration.name, version, previous);
    PublishLink {
        target: TargetEntry::new(body.as_bytes(), custom),
        body,
        seed: SeedQueries { timestamp: version.into(), up_queries: vec![sql.to_owned()], down_queries: vec![format!("DROP TABLE t{version};")] },
    }
}

pub(crate) fn client_id(n: u8) -> String {
    format!("00000000-0000-4000-8000-0000000000{n:02x}")
}

pub(crate) fn state(databases: &[(u8, u32)]) -> Value {
    let databases: Vec<Value> = databases
        .iter()
        .map(|(n, version)| {
            json!({
                "client_id": client_id(*n), "app": "notes", "file_name": "notes.db", "epoch": 1,
                "version": version, "pending": 0, "status": "completed",
            })
        })
        .collect();
    json!({ "daemon_version": "0.1.0", "databases": databases })
}

pub(crate) fn event(client: u8, id: u8, name: &str, version: u32, kind: &str, status: &str) -> Value {
    json!({
        "event_id": format!("11111111-0000-4000-8000-0000000000{id:02x}"),
        "client_id": client_id(client), "app": "notes", "kind": kind, "operation": "apply",
        "migration": name, "version": version, "revision": 1, "digest": "0".repeat(64),
        "status": status, "attempt": 1, "by": "plan", "at_ms": 1,
    })
}
