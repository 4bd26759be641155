//! What every seed begins with: a server that has published one schema, and five empty files of five devices. Made once per
//! process; a seed plays on copies.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use tempfile::TempDir;
use tokio::runtime::Runtime;
use whimbrel::migrate::chain::Chain;
use whimbrel_shared::{ids::ClientId, row_schema::RowSchema};

use crate::{
    Mig,
    replica::{Replica, Space},
};

/// Most files of one seed.
pub const MOST_FILES: usize = 5;

/// One table as the simulator knows it. All have the columns `a` and `b`, which hold tokens.
#[derive(Debug)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// The columns of its key.
    pub key: &'static [&'static str],
    /// Its unique set, but for the key.
    pub unique: &'static [&'static str],
    /// The column that refers to another table.
    pub parent: Option<(&'static str, &'static str)>,
    /// Whether upper and lower case of the key are one.
    pub nocase: bool,
}

/// The five tables: one for each strategy.
pub const TABLES: [Table; 5] = [
    Table { name: "doc", key: &["id"], unique: &["code"], parent: None, nocase: true },
    Table { name: "part", key: &["id"], unique: &[], parent: Some(("doc", "doc")), nocase: false },
    Table { name: "item", key: &["id"], unique: &["slot"], parent: None, nocase: false },
    Table { name: "line", key: &["id"], unique: &[], parent: Some(("item", "item")), nocase: false },
    Table { name: "tally", key: &["k1", "k2"], unique: &["u", "v"], parent: None, nocase: false },
];

const UP: &str = "CREATE TABLE doc(id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, a, b TEXT, code TEXT UNIQUE);
CREATE TABLE part(id TEXT PRIMARY KEY NOT NULL, doc TEXT COLLATE NOCASE REFERENCES doc(id) ON DELETE CASCADE ON UPDATE CASCADE, a, b TEXT);
CREATE TABLE item(id INTEGER PRIMARY KEY, a, b TEXT, slot INTEGER UNIQUE);
CREATE TABLE line(id INTEGER PRIMARY KEY, item INTEGER REFERENCES item(id) ON DELETE SET NULL ON UPDATE CASCADE, a, b TEXT);
CREATE TABLE tally(k1 TEXT NOT NULL, k2 INTEGER NOT NULL, a, b TEXT, u INTEGER, v INTEGER, PRIMARY KEY(k1, k2), UNIQUE(u, v)) WITHOUT ROWID";

const SETTINGS: &str = r#"
[sync.doc]
conflict = "keep-newest"
keys = "global"
[sync.part]
conflict = "merge"
keys = "global"
[sync.item]
conflict = "keep-oldest"
keys = "renumber"
[sync.line]
conflict = "server-wins"
keys = "renumber"
[sync.tally]
conflict = "client-wins"
keys = "global"
"#;

/// One of the five devices.
#[derive(Debug)]
pub struct Member {
    /// Who its file is.
    pub client_id: ClientId,
    /// What it proves itself with.
    pub token: String,
    path: PathBuf,
}

/// What seeds are played on.
pub struct Stage {
    /// Runs the server's endpoints.
    pub runtime: Runtime,
    /// The chain.
    pub chain: Chain,
    /// The devices.
    pub members: Vec<Member>,
    server: PathBuf,
    _folder: TempDir,
}

/// A folder in memory where there is one: a seed is as good on any disk, and a disk is slow.
pub fn folder() -> TempDir {
    let memory = Path::new("/dev/shm");
    let made = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    made.expect("a folder is made")
}

impl Stage {
    /// This process's.
    pub fn get() -> &'static Self {
        static STAGE: OnceLock<Stage> = OnceLock::new();
        STAGE.get_or_init(Self::new)
    }

    fn new() -> Self {
        let folder = folder();
        let space = Space::new(folder.path(), vec![Mig::up("0001_init", UP).toml(SETTINGS)]);
        let member = |n: usize| {
            let replica = Replica::known_as(&space, &format!("f{n}"), 1, ClientId::from_dice(n as u128 + 1));
            Member { client_id: replica.identity.client_id, token: replica.token.clone(), path: replica.path.clone() }
        };
        let members = (0..MOST_FILES).map(member).collect();
        let chain = space.accepted.chain.clone();
        // Its files are whole once nobody has them open.
        drop(space);
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        Self { runtime, chain, members, server: folder.path().join("server.db"), _folder: folder }
    }

    /// Ids and settings of the tables.
    pub fn rows(&self) -> RowSchema {
        self.chain.rows_at(1).expect("ids and settings")
    }

    /// Copies the server's store and the first `files` files to a folder.
    pub fn copy(&self, files: usize, to: &Path) {
        let copy = |from: &Path| {
            let name = from.file_name().expect("a file has a name");
            std::fs::copy(from, to.join(name)).expect("the file is copied");
        };
        copy(&self.server);
        self.members.iter().take(files).for_each(|m| copy(&m.path));
    }
}
