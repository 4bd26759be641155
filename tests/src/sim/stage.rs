//! What every seed begins with: a server that has published the first version, the chain of which it will publish more, and five
//! empty files of five devices. Made once per process; a seed plays on copies.

use std::{
    path::{Path, PathBuf},
    sync::OnceLock,
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use whimbrel::{migrate::chain::Chain, trust::AcceptError};
use whimbrel_shared::{
    columns::ColumnMap,
    ids::ClientId,
    protocol::publish::PublishRequest,
    row_schema::RowSchema,
    trust::{VerifiedMigration, verify},
};

use super::schema::{NEWEST, Table, chain, tables};
use crate::{
    engine::Accepted,
    replica::{Replica, Space},
};

/// Most files of one seed.
pub const MOST_FILES: usize = 5;

/// One of the five devices.
#[derive(Debug)]
pub struct Member {
    /// Who its file is.
    pub client_id: ClientId,
    /// What it proves itself with.
    pub token: String,
    path: PathBuf,
}

/// A version of the chain, as whoever is there sees it.
#[derive(Debug)]
pub struct Version {
    /// Its tables, as the simulator knows them.
    pub tables: Vec<Table>,
    /// Ids and settings of the tables.
    pub rows: RowSchema,
    /// Ids and names.
    pub map: ColumnMap,
    body: Vec<u8>,
    /// The request that publishes it and those before it.
    pub publish: Bytes,
}

/// What seeds are played on.
pub struct Stage {
    /// Runs the server's endpoints.
    pub runtime: Runtime,
    /// The chain.
    pub chain: Chain,
    /// The devices.
    pub members: Vec<Member>,
    /// The publisher's key.
    pub key: String,
    versions: Vec<Version>,
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
        let space = Space::new(folder.path(), chain(1));
        let member = |n: usize| {
            let replica = Replica::known_as(&space, &format!("f{n}"), 1, ClientId::from_dice(n as u128 + 1));
            Member { client_id: replica.identity.client_id, token: replica.token.clone(), path: replica.path.clone() }
        };
        let members = (0..MOST_FILES).map(member).collect();
        let key = space.key().to_owned();
        // Its files are whole once nobody has them open.
        drop(space);
        let whole = folder.path().join("whole");
        std::fs::create_dir(&whole).expect("a folder is made");
        let accepted = Accepted::new(&whole, chain(NEWEST));
        let request: PublishRequest = serde_json::from_value(accepted.request).expect("a request is read");
        let version = |n: u32| {
            let rows = accepted.chain.rows_at(n).expect("ids and settings");
            let links = request.links[..n as usize].to_vec();
            let body = links[n as usize - 1].body.clone().into_bytes();
            let publish = serde_json::to_vec(&PublishRequest { app: request.app.clone(), links, signed: None }).expect("a request is JSON").into();
            Version { tables: tables(n), map: rows.map().expect("ids"), rows, body, publish }
        };
        let versions = (1..=NEWEST).map(version).collect();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        Self { runtime, chain: accepted.chain, members, key, versions, server: folder.path().join("server.db"), _folder: folder }
    }

    /// What is known of a version.
    pub fn at(&self, version: u32) -> &Version {
        &self.versions[version as usize - 1]
    }

    /// The newest version.
    pub fn newest(&self) -> &Version {
        self.at(NEWEST)
    }

    /// A migration of the chain, as a device reads it back.
    pub fn load(&self, version: u32) -> Result<VerifiedMigration, AcceptError> {
        let entry = self.chain.newest(version).expect("it is in the chain");
        verify(entry, &self.at(version).body).map_err(AcceptError::from)
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
