//! A seed, played: who writes, exchanges, dies, jumps in time and goes back, one after the other.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use fastrand::Rng;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use whimbrel::{
    ambient::Ambient,
    migrate::{
        connection::{Managed, Missing},
        error::ApplyError,
        halt::Halt,
        recover,
    },
    replicate::{self, At, Means, Pace, ReplicateError, Replicated},
    store::managed,
    transport::server::{Credential, Server as Door},
};
use whimbrel_server::{
    endpoints::Endpoints,
    store::{Store, rows::Forget, sqlite::SqliteStore},
};
use whimbrel_shared::ids::ClientId;

use super::{
    Outcome,
    app::App,
    backup::Backup,
    check,
    ledger::Ledger,
    migrate,
    net::{self, Faults, Net, Shared, Side, URL, lock},
    schema::NEWEST,
    stage::{self, MOST_FILES, Stage},
};

/// How long a file is waited for. Nobody holds one for longer than a moment.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// When every seed begins, in milliseconds since 1970.
const BEGIN_MS: i64 = 1_700_000_000_000;
const HOUR_MS: i64 = 3_600_000;
/// What comes in between in one step, at most.
const BETWEEN: u32 = 12;
/// Exchanges within exchanges.
pub const DEEP: u32 = 2;

/// Tokens come after this number: up to it are keys and what is unique.
const TOKENS: u32 = 10;

const AGES: Duration = Duration::from_secs(1_000_000);

/// What an exchange is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Both ways, to the end.
    Exchange,
    /// Only what waits to be sent, before a migration.
    Drain,
}

/// One file and its daemon.
pub struct File {
    /// Where it is.
    pub path: PathBuf,
    /// Who it is.
    pub client_id: Cell<ClientId>,
    /// What its device proves itself with.
    pub token: String,
    door: Door,
    ambient: Ambient,
    /// Whether its daemon is at work on it.
    pub busy: Cell<bool>,
    /// What it was at some moments.
    pub copies: RefCell<Vec<Vec<u8>>>,
    /// Whether its application has triggers fire triggers.
    pub recursive: bool,
}

/// The endpoints over a store.
pub fn serve(store: &Path, now_ms: &Arc<AtomicI64>) -> Endpoints {
    let clock = Arc::clone(now_ms);
    let store = SqliteStore::open(store).expect("the store opens");
    Endpoints::new(Box::new(store), move || clock.load(Relaxed))
}

/// A seed's world.
pub struct World {
    /// What everything shares.
    pub shared: Arc<Shared>,
    /// The files.
    pub files: Vec<File>,
    /// What seeds are played on.
    pub stage: &'static Stage,
    /// The newest version that is published.
    pub published: Cell<u32>,
    counts: RefCell<BTreeMap<&'static str, u64>>,
    /// What the server was at some moments.
    pub backups: RefCell<Vec<Backup>>,
    /// Whether files are copied to other devices, and the server's store is put back: in every fifth seed, since what happens then
    /// excuses much that must not happen otherwise.
    wild: bool,
    /// Whether a file is another's copy.
    pub cloned: Cell<bool>,
    rows_in_a_bite: u32,
    /// How often the server's store was replaced.
    pub stores: Cell<u32>,
    /// Where everything is.
    pub folder: TempDir,
}

impl World {
    /// The world of a seed, before anything happened in it.
    pub fn new(stage: &'static Stage, seed: u64) -> Self {
        let folder = stage::folder();
        let mut rng = Rng::with_seed(seed);
        let files = rng.usize(2..=MOST_FILES);
        stage.copy(files, folder.path());
        let now_ms = Arc::new(AtomicI64::new(BEGIN_MS));
        let endpoints = serve(&folder.path().join("server.db"), &now_ms);
        // Some seeds are calm, some are wild.
        let much = |rng: &mut Rng, most: u32| if rng.bool() { rng.u32(0..most) } else { 0 };
        let faults = Faults {
            dropped: much(&mut rng, 200),
            lost: much(&mut rng, 250),
            doubled: much(&mut rng, 250),
            late: much(&mut rng, 150),
            cut: much(&mut rng, 120),
            killed: much(&mut rng, 120),
            written: much(&mut rng, 400),
            others: much(&mut rng, 200),
            slow_ms: if rng.u8(0..3) == 0 { 30_000 } else { 400 },
        };
        let skewed = rng.bool();
        let mut sides = Vec::new();
        let mut recursive = Vec::new();
        for n in 0..files {
            let skew_ms = if skewed && rng.bool() { rng.i64(-90_000_000..90_000_000) } else { rng.i64(-300..300) };
            recursive.push(rng.bool());
            let app = App::open(&folder.path().join(format!("f{n}.db")), recursive[n]);
            let boot = (1, BEGIN_MS - rng.i64(0..HOUR_MS));
            sides.push(Mutex::new(Side { app: Some(app), skew_ms, boot, late: Vec::new() }));
        }
        let published = rng.u32(1..=NEWEST);
        let rows_in_a_bite = [1, 2, 3, 7, 1_000][rng.usize(0..5)];
        let shared = Arc::new(Shared {
            rng: Mutex::new(rng),
            now_ms,
            rough: AtomicBool::new(true),
            faults,
            between: AtomicU32::new(0),
            endpoints: Mutex::new(endpoints),
            ledger: Mutex::new(Ledger::new(stage.newest().rows.synced().clone(), &stage.at(1).map)),
            wire: Mutex::new(Sha256::new()),
            sides,
            token: Mutex::new(TOKENS),
            pushes: Mutex::default(),
            story: std::env::var_os("WHIMBREL_STORY").map(|_| Mutex::default()),
        });
        let file = |n: usize| {
            let member = &stage.members[n];
            let (clock, dice) = (Arc::clone(&shared), Arc::clone(&shared));
            let booted = Arc::clone(&shared);
            let ambient = Ambient::new(move || clock.wall_ms(n), move || lock(&dice.rng).u128(..)).on_boot(move |_| migrate::boot(&booted, n));
            let net = Arc::new(Net { shared: Arc::clone(&shared), file: n });
            File {
                path: folder.path().join(format!("f{n}.db")),
                client_id: Cell::new(member.client_id),
                token: member.token.clone(),
                door: Door::new(net, URL.to_owned(), Credential::Device(member.token.clone()), ambient.clone()),
                ambient,
                busy: Cell::new(false),
                copies: RefCell::default(),
                recursive: recursive[n],
            }
        };
        let files = (0..files).map(file).collect();
        let world = Self {
            shared,
            files,
            stage,
            published: Cell::new(1),
            counts: RefCell::default(),
            backups: RefCell::default(),
            wild: seed % 5 == 4,
            cloned: Cell::new(false),
            rows_in_a_bite,
            stores: Cell::new(0),
            folder,
        };
        world.publish_up_to(published);
        world
    }

    /// Publishes versions up to this one.
    pub fn publish_up_to(&self, version: u32) {
        if version <= self.published.get() {
            return;
        }
        let request = net::post("/api/migrations", ("x-api-key", self.stage.key.clone()), self.stage.at(version).publish.clone());
        let answer = self.stage.runtime.block_on(self.shared.deliver(&request));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        let before = self.published.replace(version);
        lock(&self.shared.ledger).published((before, version), &self.stage.at(version).map);
    }

    /// Plays it to its end.
    pub fn play(self) -> Result<Outcome, String> {
        let played = self.played();
        if let Some(story) = &self.shared.story {
            lock(story).iter().for_each(|line| println!("{line}"));
        }
        played
    }

    fn played(&self) -> Result<Outcome, String> {
        let steps = 10 + self.shared.roll(50);
        for _ in 0..steps {
            self.step()?;
            self.sound()?;
        }
        self.shared.rough.store(false, Relaxed);
        check::quiet(self)?;
        self.sound()?;
        let rows = check::everything(self)?;
        let wire = format!("{:x?}", lock(&self.shared.wire).clone().finalize());
        Ok(Outcome { rows, wire, counts: self.counts.borrow().clone() })
    }

    fn sound(&self) -> Result<(), String> {
        let ledger = lock(&self.shared.ledger);
        if ledger.wrong.is_empty() { Ok(()) } else { Err(ledger.wrong.join("; ")) }
    }

    /// Something happened.
    pub fn count(&self, what: &'static str) {
        *self.counts.borrow_mut().entry(what).or_default() += 1;
    }

    fn step(&self) -> Result<(), String> {
        let shared = &self.shared;
        let file = shared.roll(self.files.len() as u32) as usize;
        shared.pass(3_000);
        shared.between.store(BETWEEN, Relaxed);
        match shared.roll(1_000) {
            0..480 => shared.write(file),
            480..780 => {
                let _ = self.exchange(file, 0);
            }
            780..820 if self.published.get() < NEWEST => self.publish(),
            780..880 => self.migrate(file, 1 + shared.roll(self.published.get()))?,
            880..910 => {
                let ms = i64::from(shared.roll(48)) * HOUR_MS;
                shared.now_ms.fetch_add(ms, Relaxed);
            }
            910..922 => self.jump(file),
            922..934 => self.boot(file),
            934..954 => self.copy(file),
            954..975 => self.restore(file),
            975..981 if self.wild => self.clone_to(file)?,
            981..987 if self.wild => self.back_up_server(),
            987..992 if self.wild => self.restore_server()?,
            _ => self.forget(),
        }
        Ok(())
    }

    /// Somebody sets the clock.
    fn jump(&self, file: usize) {
        self.count("clock set");
        let by = i64::from(self.shared.roll(200_000_000)) - 100_000_000;
        lock(&self.shared.sides[file]).skew_ms += by;
        self.shared.tell(|| format!("f{file} clock set by {by}"));
    }

    fn boot(&self, file: usize) {
        self.count("boot");
        let now_ms = self.shared.now_ms.load(Relaxed);
        let mut side = lock(&self.shared.sides[file]);
        side.boot = (side.boot.0 + 1, now_ms);
    }

    /// The server forgets deletions that are older than some moment.
    fn forget(&self) {
        self.count("forgotten");
        check::keep(self);
        let before_ms = self.shared.now_ms.load(Relaxed) - i64::from(self.shared.roll(20)) * HOUR_MS;
        let store = SqliteStore::open(&self.server()).expect("the store opens");
        let forgotten = self.stage.runtime.block_on(store.forget_rows(Forget::before(before_ms))).expect("it forgets");
        self.shared.tell(|| format!("server forgets {forgotten} rows from before {before_ms}"));
    }

    /// Where the server's store is.
    pub fn server(&self) -> PathBuf {
        match self.stores.get() {
            0 => self.folder.path().join("server.db"),
            n => self.folder.path().join(format!("server{n}.db")),
        }
    }

    /// A file exchanges rows, as far as it gets.
    pub fn exchange(&self, file: usize, depth: u32) -> Result<Replicated, ReplicateError> {
        self.files[file].busy.set(true);
        self.shared.tell(|| format!("f{file} exchanges{}", if depth > 0 { " meanwhile" } else { "" }));
        let done = self.exchanged(file, depth, Purpose::Exchange);
        self.shared.tell(|| format!("f{file} ends: {done:?}"));
        self.count(if done.is_ok() { "exchanges" } else { "exchanges cut short" });
        self.files[file].busy.set(false);
        done
    }

    /// The same, for a purpose.
    pub fn exchanged(&self, file: usize, depth: u32, purpose: Purpose) -> Result<Replicated, ReplicateError> {
        let shared = &self.shared;
        let one = &self.files[file];
        let mut open = Managed::open(&one.path, Missing::Refuse, PATIENCE, Halt::default()).expect("the file opens");
        let identity = managed::identity(&open.connection).expect("an identity");
        // A migration in which the process died.
        recover::recover(&mut open, &identity, &self.stage.chain, &one.ambient, migrate::POLICY, false).expect("what died is taken up");
        let epoch = identity.epoch;
        let version = lock(&shared.sides[file]).version();
        let known = self.stage.at(version);
        let synced_at = |version: u32| -> BTreeSet<u32> {
            self.stage.chain.rows_at(version).map(|rows| rows.synced().0.keys().copied().collect()).unwrap_or_default()
        };
        let at = At {
            client_id: one.client_id.get(),
            epoch,
            version,
            map: &known.map,
            synced: known.rows.synced(),
            synced_at: &synced_at,
            holds: &|file| Ok(managed::intent(file)?.is_none()),
        };
        let boot = || migrate::boot(shared, file);
        let between = || {
            shared.pass(20);
            check::refers(self, file);
            if shared.goes_wrong(shared.faults.killed) {
                self.count("killed");
                return Err(ApplyError::Cancelled);
            }
            if shared.comes_between(shared.faults.written) {
                shared.write(file);
            }
            if depth < DEEP && shared.comes_between(shared.faults.others) {
                let other = shared.roll(self.files.len() as u32) as usize;
                if !self.files[other].busy.get() {
                    let _ = self.exchange(other, depth + 1);
                }
            }
            Ok(())
        };
        let pace = Pace::Given { rows: self.rows_in_a_bite, between: &between };
        let handle = self.stage.runtime.handle();
        let means = Means { server: &one.door, handle, ambient: &one.ambient, boot: &boot, stop: tokio::sync::watch::channel(false).1, pace };
        match purpose {
            Purpose::Exchange => replicate::replicate(&mut open, &at, &means),
            // Nothing in a simulation may depend on how long it takes.
            Purpose::Drain => replicate::drain(&mut open, &at, &means, Instant::now() + AGES).map(|_| Replicated::default()),
        }
    }
}
