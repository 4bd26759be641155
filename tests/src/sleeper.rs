//! A device whose clock a test holds: the daemon's own cycle over real files and a real `device.db`, without the process
//! around it. It can be put to sleep for years.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use rusqlite::Connection;
use tokio::sync::watch;
use whimbrel::{
    ambient::Ambient,
    config::{Config, Trust},
    cycle::Core,
    migrate::{apply::Policy, backup::Shelf, halt::Halt, work::Shared},
    store::device::{DeviceStore, Signatures},
    transport::{
        http::{Reqwest, Route},
        tls::Roots,
    },
    trust,
};
use whimbrel_shared::protocol::state::HealthItem;

use crate::signed_server::APP;

/// The device.
pub struct Sleeper {
    folder: tempfile::TempDir,
    clock: Arc<AtomicI64>,
    runtime: tokio::runtime::Runtime,
    core: Option<Core>,
    url: String,
    more: String,
}

impl Sleeper {
    /// A device with one database of [`APP`], empty, that has pinned `root`, at `now_ms`.
    pub fn new(url: &str, root: &[u8], now_ms: i64) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        std::fs::write(folder.path().join("root.json"), root).expect("a file can be written");
        let file = Connection::open(folder.path().join("notes.db")).expect("a database can be made");
        file.execute_batch("PRAGMA journal_mode = WAL; CREATE TABLE own(x); INSERT INTO own VALUES (1)")
            .expect("the application's statements are right");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime can be made");
        let (clock, url) = (Arc::new(AtomicI64::new(now_ms)), url.to_owned());
        Self { folder, clock, runtime, core: None, url, more: String::new() }
    }

    /// A line more of its configuration, from its next start on.
    pub fn setting(mut self, line: &str) -> Self {
        self.more = format!("{}{line}\n", self.more);
        self
    }

    /// What time it is.
    pub fn now_ms(&self) -> i64 {
        self.clock.load(Ordering::SeqCst)
    }

    /// Sets its clock.
    pub fn set_clock(&self, now_ms: i64) {
        self.clock.store(now_ms, Ordering::SeqCst);
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Its database.
    pub fn database(&self) -> PathBuf {
        self.folder().join("notes.db")
    }

    /// Its `device.db`.
    pub fn device_db(&self) -> PathBuf {
        self.folder().join("state/device.db")
    }

    /// Ends it. The next cycle starts it again.
    pub fn stop(&mut self) {
        self.core = None;
    }

    /// One cycle, as the daemon runs one.
    pub fn cycle(&mut self) {
        let mut core = self.core.take().unwrap_or_else(|| self.start());
        let core = self.runtime.block_on(async move {
            core.cycle(false, &mut |_, _| {}).await.expect("device.db can be used");
            core
        });
        self.core = Some(core);
    }

    fn start(&self) -> Core {
        let text = format!(
            "server = {:?}\ntrust = \"tuf\"\nstate_dir = \"state\"\n{}[[database]]\npath = \"notes.db\"\napp = \"{APP}\"\n[roots]\n{APP} = \"root.json\"\n",
            self.url, self.more
        );
        let config = Config::parse(&self.folder().join("config.toml"), &text, |_| None).expect("the configuration is right");
        assert_eq!(config.trust, Trust::Tuf);
        let store = DeviceStore::open(&config.state_dir).expect("device.db opens").with_signatures(Signatures::Required);
        trust::pin_file(&store, &APP.parse().expect("it is a name"), &self.folder().join("root.json"), self.now_ms()).expect("the root is pinned");
        let clock = self.clock.clone();
        let ambient = Ambient::new(move || clock.load(Ordering::SeqCst), || u128::from(fastrand::u64(..)) << 64 | u128::from(fastrand::u64(..)));
        let shared = Shared {
            store: Arc::new(Mutex::new(store)),
            state_dir: config.state_dir.clone(),
            ambient,
            policy: Policy { max_attempts: 3, grouping: true, wait_for_app: Duration::from_secs(20), report_values: false, skip_verify: false },
            halt: Halt::default(),
            shelf: Shelf { dir: config.backup.dir.clone(), keep: config.backup.keep },
        };
        let http = Arc::new(Reqwest::new(&Route::default()).expect("HTTP can be set up"));
        Core::new(config, shared, http, Roots::System, watch::channel(false).1)
    }

    fn core(&self) -> &Core {
        self.core.as_ref().expect("it runs")
    }

    /// Codes of what is wrong with the device or its database, sorted.
    pub fn codes(&self) -> Vec<String> {
        let (core, mut codes) = (self.core(), Vec::new());
        let mut put = |items: &mut dyn Iterator<Item = &HealthItem>| codes.extend(items.map(|item| item.code.clone()));
        put(&mut core.server.alarms.iter());
        put(&mut core.server.trust.values().flatten());
        let accepted_ms = core.shared.store().newest_accepted_ms().expect("device.db can be read");
        put(&mut core.clock_suspect(accepted_ms).iter());
        put(&mut core.sites.values().flat_map(|site| &site.health));
        codes.sort();
        codes
    }

    /// Why the last exchange failed.
    pub fn exchange_error(&self) -> Option<String> {
        self.core().server.error.clone()
    }

    /// The tables that the chain made, by name.
    pub fn tables(&self) -> Vec<String> {
        let file = Connection::open(self.database()).expect("the database opens");
        let mut statement =
            file.prepare("SELECT name FROM sqlite_schema WHERE type = 'table' AND name GLOB 't[0-9]*' ORDER BY name").expect("it is SQL");
        statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("names are text")
    }

    /// Versions that were accepted.
    pub fn accepted(&self) -> Vec<u32> {
        let entries = self.core().shared.store().entries(&APP.parse().expect("it is a name")).expect("device.db can be read");
        entries.iter().map(|entry| entry.custom.version).collect()
    }

    /// The floors, as `device.db` has them.
    pub fn floors(&self) -> Vec<(String, u64)> {
        let kept = self.core().shared.store().kept(&APP.parse().expect("it is a name")).expect("device.db can be read");
        kept.floors.into_iter().map(|floor| (floor.role, floor.version)).collect()
    }

    /// Does something to the tables of `device.db`, as a bad disk would.
    pub fn harm(&self, sql: &str) {
        let file = Connection::open(self.device_db()).expect("device.db opens");
        for statement in sql.split(';') {
            assert!(file.execute(statement, []).expect("it is SQL") > 0, "nothing was harmed by {statement}");
        }
    }
}
