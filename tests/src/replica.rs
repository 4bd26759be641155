//! Databases that exchange rows with a space, without a daemon around them: a real server on loopback, real files, an
//! application's own connection to each, and the daemon's own exchange.

mod wire;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, PoisonError,
        atomic::{AtomicI64, Ordering::Relaxed},
    },
    time::Duration,
};

use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use whimbrel::{
    ambient::Ambient,
    migrate::{
        apply::Policy,
        connection::{Managed, Missing},
        halt::Halt,
        live::Live,
        transaction::{Terms, write},
    },
    replicate::{self, At, Means, Pace, ReplicateError, Replicated},
    store::{managed::FileIdentity, outbox},
    sync::{
        boot::Boot,
        capture::{Wanted, install},
        decide::Deciding,
        error::SyncError,
        shape::Mode,
        tables::Tables,
        verify::{Unequal, Verified, verify},
    },
    transport::{
        HttpRequest, HttpResponse, TransportError,
        http::{Reqwest, Route},
        server::{Credential, Server as Door},
    },
};
use whimbrel_server::{
    Config, Server,
    secrets::{Kind, Scope, Secret},
    serve,
    server::StoreAt,
    store::{NewKey, NewToken, Store, sqlite::SqliteStore},
};
use whimbrel_shared::{ids::ClientId, manifest::Direction, protocol::sums::SumsRequest, row_schema::RowSchema};

pub use self::wire::{Meddle, Traffic, lost};
use self::wire::{Meddler, Watched};
use crate::{Mig, engine::Accepted, http};

const LIMIT: Duration = Duration::from_secs(60);
/// The app of all of them.
pub const APP: &str = "bench";

/// A server with one app.
pub struct Space {
    /// Runs the server and the requests of its replicas.
    pub runtime: Runtime,
    /// Its chain, as devices accept it.
    pub accepted: Accepted,
    server: Option<Server>,
    store: SqliteStore,
    key: String,
    folder: PathBuf,
}

impl Space {
    /// With a chain that is published.
    pub fn new(folder: &Path, chain: Vec<Mig>) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime starts");
        let path = folder.join("server.db");
        let config =
            Config { listen: "127.0.0.1:0".parse().expect("an address"), store: StoreAt::Sqlite(path.clone()), keep: Default::default(), keys: None };
        let server = runtime.block_on(serve(config)).expect("the server starts");
        let store = SqliteStore::open(&path).expect("its store opens");
        let secret = Secret::new(Kind::ApiKey);
        let key = NewKey { name: "tests".to_owned(), hash: secret.digest(), scope: Scope::Admin, now_ms: 0 };
        runtime.block_on(store.create_key(key)).expect("a key is made");
        let accepted = Accepted::new(folder, chain);
        let space = Self { runtime, accepted, server: Some(server), store, key: secret.reveal().to_owned(), folder: folder.to_owned() };
        space.publish();
        space
    }

    fn publish(&self) {
        let answer = self.ask("POST", "/api/migrations", &format!("X-API-Key: {}\r\n", self.key), &self.accepted.request);
        assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(&answer.body));
    }

    /// The operator's key.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// One request with the operator's key.
    pub fn operate(&self, method: &str, path: &str, body: &Value) -> http::Message {
        self.ask(method, path, &format!("X-API-Key: {}\r\n", self.key), body)
    }

    /// One push as a device sends it: its token, and the packed rows.
    pub fn push_as(&self, token: &str, packed: &[u8]) -> http::Message {
        let headers = format!("Authorization: Bearer {token}\r\nContent-Type: {}\r\n", whimbrel_shared::packed::CONTENT_TYPE);
        let addr = self.server.as_ref().expect("it runs").addr();
        http::ask(addr, "POST", "/api/sync/push", &headers, packed).expect("the server answers")
    }

    fn ask(&self, method: &str, path: &str, headers: &str, body: &Value) -> http::Message {
        let headers = format!("{headers}Content-Type: application/json\r\n");
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        http::ask(self.server.as_ref().expect("it runs").addr(), method, path, &headers, &body).expect("the server answers")
    }

    fn enroll(&self) -> String {
        let secret = Secret::new(Kind::Enrolment);
        let token = NewToken {
            hash: secret.digest(),
            app: APP.parse().expect("a name"),
            space: Default::default(),
            uses: 1,
            now_ms: 0,
            expires_at_ms: i64::MAX,
        };
        self.runtime.block_on(self.store.create_token(token)).expect("a token is made");
        let answer = self.ask("POST", "/api/enroll", "", &json!({ "token": secret.reveal() }));
        assert_eq!(answer.status(), 200, "{}", String::from_utf8_lossy(&answer.body));
        answer.json()["device_token"].as_str().expect("a token").to_owned()
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            let _ = self.runtime.block_on(server.stop());
        }
    }
}

/// One database of a device of its own.
pub struct Replica {
    /// The application's connection.
    pub app: Connection,
    /// The file.
    pub path: PathBuf,
    /// Who it is.
    pub identity: FileIdentity,
    /// The version that it has completed.
    pub version: u32,
    /// What its clock on the wall is ahead of the true time, in milliseconds.
    pub skew_ms: Arc<AtomicI64>,
    /// What its device proves itself with.
    pub token: String,
    /// What went over its wire.
    pub traffic: Arc<Traffic>,
    /// Stops its exchanges.
    pub halt: Halt,
    door: Door,
    ambient: Ambient,
    meddler: Meddler,
}

impl Replica {
    /// An empty file, migrated to `version`.
    pub fn new(space: &Space, name: &str, version: u32) -> Self {
        Self::known_as(space, name, version, ClientId::from_dice(Ambient::real().dice()))
    }

    /// The same for a file that is known by `id`.
    pub fn known_as(space: &Space, name: &str, version: u32, id: ClientId) -> Self {
        let path = space.folder.join(format!("{name}.db"));
        let app = Connection::open(&path).expect("the file opens");
        app.busy_timeout(LIMIT).expect("a timeout");
        app.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE app_own(x)").expect("the application's own table");
        let identity = space.accepted.prepare_as(&path, id);
        let skew_ms = Arc::new(AtomicI64::new(0));
        let (skew, real) = (Arc::clone(&skew_ms), Ambient::real());
        let dice = Ambient::real();
        let ambient = Ambient::new(move || real.now_ms() + skew.load(Relaxed), move || dice.dice());
        let token = space.enroll();
        let url = format!("http://{}", space.server.as_ref().expect("it runs").addr());
        let (traffic, halt, meddler) = (Arc::new(Traffic::default()), Halt::default(), Meddler::default());
        let inner = Reqwest::new(&Route::default()).expect("a client");
        let wire = Watched { inner, traffic: Arc::clone(&traffic), halt: halt.clone(), meddler: Arc::clone(&meddler) };
        let door = Door::new(Arc::new(wire), url, Credential::Device(token.clone()), ambient.clone());
        let mut replica = Self { app, path, identity, version: 0, skew_ms, token, traffic, halt, door, ambient, meddler };
        replica.migrate(space, version);
        replica
    }

    /// The same with an older content, as a person would copy it back while nothing runs.
    pub fn replaced(self, content: &[u8]) -> Self {
        let Self { app, path, identity, version, skew_ms, token, traffic, halt, door, ambient, meddler } = self;
        app.close().expect("the application ends");
        for beside in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{beside}", path.display()));
        }
        std::fs::write(&path, content).expect("the file can be written");
        let app = Connection::open(&path).expect("the file opens");
        app.busy_timeout(LIMIT).expect("a timeout");
        Self { app, path, identity, version, skew_ms, token, traffic, halt, door, ambient, meddler }
    }

    /// A copy of the file on a device of its own, with the client id of its own that a look gives it.
    pub fn copied(&self, space: &Space, name: &str) -> Self {
        self.write("PRAGMA wal_checkpoint(TRUNCATE)");
        let path = space.folder.join(format!("{name}.db"));
        std::fs::copy(&self.path, &path).expect("the file is copied");
        let identity = FileIdentity { client_id: ClientId::from_dice(Ambient::real().dice()), ..self.identity.clone() };
        let app = Connection::open(&path).expect("the file opens");
        app.busy_timeout(LIMIT).expect("a timeout");
        whimbrel::store::managed::set_identity(&app, &identity).expect("it gets its name");
        let (token, url) = (space.enroll(), self.door.url().to_owned());
        let door =
            Door::new(Arc::new(Reqwest::new(&Route::default()).expect("a client")), url, Credential::Device(token.clone()), self.ambient.clone());
        let (traffic, halt) = (Arc::default(), Halt::default());
        let (version, skew_ms, ambient, meddler) = (self.version, Arc::default(), self.ambient.clone(), Meddler::default());
        let copy = Self { app, path, identity, version, skew_ms, token, traffic, halt, door, ambient, meddler };
        copy.tell(space);
        copy
    }

    /// Applies the chain up to a version.
    pub fn migrate(&mut self, space: &Space, to: u32) {
        let mut file = self.open();
        let policy = Policy { max_attempts: 3, grouping: true, wait_for_app: LIMIT, report_values: true, skip_verify: false };
        let ran = space.accepted.run(&mut file, &self.identity, (self.version + 1, to), policy, &Live::default());
        assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
        self.version = to;
        let rows = self.rows(space);
        let map = rows.map().expect("ids");
        let wanted: Vec<Wanted> =
            rows.synced().0.values().filter(|s| s.direction != Direction::Pull).map(|s| Wanted { table: s.table, mode: Mode::Mask }).collect();
        let now_ms = self.ambient.now_ms();
        write(&mut file, Terms::ours(LIMIT), |file| Ok(install(&file.connection, &map, &wanted, now_ms)?)).expect("capture is installed");
        self.tell(space);
    }

    fn rows(&self, space: &Space) -> RowSchema {
        space.accepted.chain.rows_at(self.version).expect("ids and settings")
    }

    fn tell(&self, space: &Space) {
        let state = json!({ "daemon_version": "0", "labels": {}, "databases": [{
            "client_id": self.identity.client_id, "app": APP, "file_name": "x.db", "epoch": self.identity.epoch, "version": self.version,
            "pending": 0, "status": "completed", "health": [],
        }]});
        let state = serde_json::from_value(state).expect("a state");
        space.runtime.block_on(self.door.state(&state)).expect("the server takes the state");
    }

    fn open(&self) -> Managed {
        Managed::open(&self.path, Missing::Refuse, LIMIT, self.halt.clone()).expect("the file opens")
    }

    /// Exchanges rows.
    pub fn sync(&self, space: &Space) -> Replicated {
        self.try_sync(space).unwrap_or_else(|e| panic!("{}: {e}", self.path.display()))
    }

    /// Exchanges rows, or says why not.
    pub fn try_sync(&self, space: &Space) -> Result<Replicated, ReplicateError> {
        self.try_sync_at(space, Pace::Measured)
    }

    /// Exchanges rows at a pace of the story's own, which may do something between two transactions.
    pub fn try_sync_at(&self, space: &Space, pace: Pace<'_>) -> Result<Replicated, ReplicateError> {
        let rows = self.rows(space);
        let map = rows.map().expect("ids");
        let synced_at = |version: u32| -> BTreeSet<u32> {
            space.accepted.chain.rows_at(version).map(|rows| rows.synced().0.keys().copied().collect()).unwrap_or_default()
        };
        let epoch = whimbrel::store::managed::identity(&self.app).expect("an identity").epoch;
        let at = At {
            client_id: self.identity.client_id,
            epoch,
            version: self.version,
            map: &map,
            synced: rows.synced(),
            synced_at: &synced_at,
            holds: &|_| Ok(true),
        };
        let boot = || Boot::of_machine(self.ambient.now_ms());
        let means = Means {
            server: &self.door,
            handle: space.runtime.handle(),
            ambient: &self.ambient,
            boot: &boot,
            stop: tokio::sync::watch::channel(false).1,
            pace,
        };
        replicate::replicate(&mut self.open(), &at, &means)
    }

    /// Has every answer go through `meddle` from now on, on its way from the server.
    pub fn meddle(&self, meddle: impl FnMut(&HttpRequest, HttpResponse) -> Result<HttpResponse, TransportError> + Send + 'static) {
        *self.meddler.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::new(meddle));
    }

    /// Answers arrive again as they were given.
    pub fn leave_alone(&self) {
        *self.meddler.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Decides something on the file, as the daemon does for a person.
    pub fn decide<T>(&self, space: &Space, mut what: impl FnMut(&Deciding<'_>) -> Result<T, SyncError>) -> T {
        let rows = self.rows(space);
        let map = rows.map().expect("ids");
        let (boot, now_ms) = (Boot::of_machine(self.ambient.now_ms()), self.ambient.now_ms());
        let decided = write(&mut self.open(), Terms::ours(LIMIT), |file| {
            let tables = Tables::open(&file.connection, &map, rows.synced())?;
            Ok(what(&Deciding { connection: &file.connection, tables: &tables, version: self.version, boot: &boot, now_ms })?)
        });
        decided.expect("it is decided").0
    }

    /// Compares its rows with the space's.
    pub fn verify(&self, space: &Space) -> Result<Verified, Unequal> {
        let rows = self.rows(space);
        let map = rows.map().expect("ids");
        let asked = SumsRequest { client_id: self.identity.client_id, schema: self.version };
        let sums = space.runtime.block_on(self.door.sums(&asked)).expect("the server sums");
        let file = self.open();
        let tables = Tables::open(&file.connection, &map, rows.synced()).expect("the tables are read");
        verify(&file.connection, &tables, &map, &sums.tables, sums.version, &mut || {}).expect("the rows are read")
    }

    /// Runs the application's statements.
    #[track_caller]
    pub fn write(&self, sql: &str) {
        self.app.execute_batch(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }

    /// A table's rows as text, by key.
    pub fn table(&self, sql: &str) -> Vec<String> {
        let mut statement = self.app.prepare(sql).expect("it compiles");
        let columns = statement.column_count();
        let rows = statement.query_map([], |row| {
            let values = (0..columns).map(|at| Ok(format!("{:?}", row.get::<_, rusqlite::types::Value>(at)?))).collect::<rusqlite::Result<Vec<_>>>();
            Ok(values?.join(" "))
        });
        rows.and_then(Iterator::collect).expect("the rows are read")
    }

    /// Rows that wait to be sent.
    pub fn unsent(&self) -> u64 {
        outbox::count(&self.app).expect("the outbox is counted")
    }

    /// What is in quarantine: code and reason by table and key.
    pub fn quarantine(&self) -> BTreeMap<String, String> {
        let mut statement = self.app.prepare("SELECT tab, k1, code, why FROM _whimbrel_quarantine").expect("it is there");
        let rows = statement.query_map([], |row| {
            let key: rusqlite::types::Value = row.get(1)?;
            Ok((format!("{} {key:?}", row.get::<_, i64>(0)?), format!("{}: {}", row.get::<_, String>(2)?, row.get::<_, String>(3)?)))
        });
        rows.and_then(Iterator::collect).expect("the quarantine is read")
    }

    /// Conflicts: kind and whether they are open.
    pub fn conflicts(&self) -> Vec<(String, bool)> {
        let mut statement = self.app.prepare("SELECT kind, open FROM _whimbrel_conflict ORDER BY id").expect("it is there");
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect).expect("the conflicts are read")
    }
}

/// Exchanges until nobody has anything more to say, and asserts that this comes to an end.
pub fn settle(space: &Space, replicas: &[&Replica]) {
    for _ in 0..20 {
        let moved: u64 = replicas.iter().map(|r| r.sync(space)).map(|done| done.pushed + done.landed).sum();
        if moved == 0 {
            return;
        }
    }
    panic!("it does not come to rest");
}
