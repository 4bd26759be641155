//! The store in one SQLite file: one connection that writes, a few that read, none of them on an async thread.

mod conflicts;
mod devices;
mod fleet;
mod keys;
mod lane;
mod lifting;
mod metadata;
mod pull;
mod push;
mod record;
mod reports;
mod repository;
mod schema;
mod spaces;
mod sums;
mod tokens;
mod unique;

use std::{
    fs::{DirBuilder, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    str::FromStr,
    sync::Arc,
    time::Duration,
};

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, types::Type};
use serde::de::DeserializeOwned;
use whimbrel_shared::{
    ids::{AppName, ClientId, DeviceId, Digest, EventId},
    migration::SeedMigration,
    protocol::{
        clients::{ClientDetail, ClientsResponse, PlanRequest, PublishedMigration},
        conflicts::ConflictsResponse,
        poll::PollResponse,
        pull::{PullRequest, PullResponse},
        push::PushResponse,
        report::SeedStatus,
        state::StateRequest,
        sums::{SumsRequest, SumsResponse},
    },
    status::Event,
    tuf::Role,
};

use super::{
    AuditResponse, ClientRef, ClientsPage, Deed, Device, DevicesPage, DevicesResponse, Enrolled, Enrolment, HistoryResponse, Key, KeyInfo, NewKey,
    NewToken, Page, PlanResponse, Publication, Refusal, Rotation, Store, StoreError, TokenInfo, rows,
    signed::{Kept, Repository, Signing},
};
use lane::Lane;
use pull::Pulled;
use push::Pushed;
use spaces::Schemas;

/// How long SQLite waits for another process (the command line) before it says busy.
const BUSY: Duration = Duration::from_secs(5);
/// Connections that read. More than cores: a read waits for the disk now and then.
const READERS: usize = 4;

/// The store in one file.
pub struct SqliteStore {
    writer: Arc<Lane>,
    readers: Arc<Lane>,
    schemas: Schemas,
}

impl SqliteStore {
    /// Opens the store at `path`; makes it, with its directory, when it is not there, readable for its owner only.
    /// Fails without a change when it cannot be opened or was written by a later server.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        make_private(path).map_err(|e| StoreError::Unavailable(format!("{} cannot be made: {e}", path.display())))?;
        let in_path = |e: StoreError| match e {
            StoreError::Unavailable(why) => StoreError::Unavailable(format!("{}: {why}", path.display())),
            other => other,
        };
        let mut writer = connect(path).map_err(in_path)?;
        schema::upgrade(&mut writer).map_err(in_path)?;
        let readers = (0..READERS)
            .map(|_| {
                let reader = connect(path)?;
                reader.pragma_update(None, "query_only", true)?;
                Ok(reader)
            })
            .collect::<Result<_, StoreError>>()
            .map_err(in_path)?;
        Ok(Self { writer: Lane::new(vec![writer]), readers: Lane::new(readers), schemas: Schemas::default() })
    }

    /// One transaction that writes. Rolled back on every error.
    fn write<T: Send + 'static>(&self, deed: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static) -> Deed<'_, T> {
        Box::pin(self.writer.clone().run(move |connection| {
            let tx = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let done = deed(&tx)?;
            tx.commit()?;
            Ok(done)
        }))
    }

    /// One transaction that reads: everything in it is from the same moment.
    fn read<T: Send + 'static>(&self, deed: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError> + Send + 'static) -> Deed<'_, T> {
        Box::pin(self.readers.clone().run(move |connection| deed(&connection.transaction()?)))
    }
}

impl Store for SqliteStore {
    fn ready(&self) -> Deed<'_, ()> {
        self.read(|tx| Ok(tx.query_row("SELECT count(*) FROM schema_version", [], |_| Ok(()))?))
    }

    fn create_key(&self, key: NewKey) -> Deed<'_, ()> {
        self.write(move |tx| keys::create_key(tx, &key))
    }
    fn keys(&self) -> Deed<'_, Vec<KeyInfo>> {
        self.read(keys::keys)
    }
    fn revoke_key(&self, name: String, now_ms: i64) -> Deed<'_, ()> {
        self.write(move |tx| keys::revoke_key(tx, &name, now_ms))
    }
    fn key(&self, hash: Digest) -> Deed<'_, Option<Key>> {
        self.read(move |tx| keys::key(tx, &hash))
    }
    fn create_token(&self, token: NewToken) -> Deed<'_, i64> {
        self.write(move |tx| keys::create_token(tx, &token))
    }
    fn tokens(&self) -> Deed<'_, Vec<TokenInfo>> {
        self.read(keys::tokens)
    }
    fn revoke_token(&self, id: i64, now_ms: i64) -> Deed<'_, ()> {
        self.write(move |tx| keys::revoke_token(tx, id, now_ms))
    }

    fn enroll(&self, enrolment: Enrolment) -> Deed<'_, Enrolled> {
        self.write(move |tx| devices::enroll(tx, &enrolment))
    }
    fn device(&self, token: Digest, now_ms: i64) -> Deed<'_, Option<Device>> {
        self.read(move |tx| tokens::device(tx, &token, now_ms))
    }
    fn rotate_token(&self, rotation: Rotation) -> Deed<'_, Option<DeviceId>> {
        self.write(move |tx| tokens::rotate(tx, &rotation))
    }
    fn revoke_device(&self, device: DeviceId, by: String, now_ms: i64) -> Deed<'_, ()> {
        self.write(move |tx| tokens::revoke(tx, device, &by, now_ms))
    }
    fn devices(&self, page: DevicesPage) -> Deed<'_, DevicesResponse> {
        self.read(move |tx| tokens::list(tx, &page))
    }
    fn clients_of(&self, device: DeviceId) -> Deed<'_, Vec<ClientRef>> {
        self.read(move |tx| devices::clients_of(tx, device))
    }
    fn add_client(&self, device: DeviceId, fresh: ClientRef) -> Deed<'_, ClientRef> {
        self.write(move |tx| devices::add_client(tx, device, fresh))
    }
    fn save_seen(&self, seen: Vec<(DeviceId, i64)>) -> Deed<'_, ()> {
        self.write(move |tx| devices::save_seen(tx, &seen))
    }
    fn save_state(&self, device: DeviceId, state: StateRequest) -> Deed<'_, ()> {
        self.write(move |tx| devices::save_state(tx, device, &state))
    }
    fn poll(&self, token: Digest, now_ms: i64) -> Deed<'_, Option<(DeviceId, PollResponse)>> {
        self.read(move |tx| devices::poll(tx, &token, now_ms))
    }

    fn targets(&self, app: AppName) -> Deed<'_, Option<Vec<u8>>> {
        self.read(move |tx| repository::targets(tx, &app))
    }
    fn target(&self, app: AppName, path: String) -> Deed<'_, Option<(Digest, Vec<u8>)>> {
        self.read(move |tx| repository::target(tx, &app, &path))
    }
    fn publish(&self, publication: Publication) -> Deed<'_, ()> {
        self.write(move |tx| repository::publish(tx, &publication))
    }
    fn repository(&self, app: AppName) -> Deed<'_, Option<Repository>> {
        self.read(move |tx| metadata::repository(tx, &app))
    }
    fn metadata(&self, app: AppName, role: Role, version: Option<u64>) -> Deed<'_, Option<Kept>> {
        self.read(move |tx| metadata::metadata(tx, &app, role, version))
    }
    fn signed_apps(&self) -> Deed<'_, Vec<AppName>> {
        self.read(metadata::signed_apps)
    }
    fn sign(&self, signing: Signing) -> Deed<'_, ()> {
        self.write(move |tx| metadata::save(tx, &signing))
    }
    fn migrations(&self, app: AppName) -> Deed<'_, Option<Vec<PublishedMigration>>> {
        self.read(move |tx| fleet::migrations(tx, &app))
    }

    fn pending(&self, client: ClientId) -> Deed<'_, Vec<SeedMigration>> {
        self.read(move |tx| repository::pending(tx, client))
    }
    fn report(&self, device: DeviceId, reports: Vec<Event>, now_ms: i64) -> Deed<'_, Vec<EventId>> {
        self.write(move |tx| reports::report(tx, device, reports, now_ms))
    }
    fn report_flag(&self, client: ClientRef, flag: SeedStatus, id: EventId, now_ms: i64) -> Deed<'_, Option<EventId>> {
        self.write(move |tx| reports::report_flag(tx, &client, flag, id, now_ms))
    }

    fn clients(&self, page: ClientsPage) -> Deed<'_, ClientsResponse> {
        self.read(move |tx| fleet::clients(tx, &page))
    }
    fn client(&self, id: ClientId) -> Deed<'_, Option<ClientDetail>> {
        self.read(move |tx| fleet::client(tx, id))
    }
    fn history(&self, id: ClientId, page: Page) -> Deed<'_, Option<HistoryResponse>> {
        self.read(move |tx| fleet::history(tx, id, page))
    }
    fn set_plan(&self, request: PlanRequest, by: String, now_ms: i64) -> Deed<'_, PlanResponse> {
        self.write(move |tx| fleet::set_plan(tx, &request, &by, now_ms))
    }
    fn plan(&self, app: AppName) -> Deed<'_, Option<PlanResponse>> {
        self.read(move |tx| fleet::plan(tx, &app))
    }
    fn push(&self, push: rows::Push) -> Deed<'_, PushResponse> {
        let schemas = self.schemas.clone();
        let pushed = self.write(move |tx| push::push(tx, &schemas, &push));
        Box::pin(async move {
            match pushed.await? {
                Pushed::Answered(answer) => Ok(answer),
                Pushed::Rewound(refusal) => Err(refusal.into()),
            }
        })
    }
    fn pull(&self, device: DeviceId, asked: PullRequest, now_ms: i64) -> Deed<'_, PullResponse> {
        let read = move |asked: PullRequest| {
            let schemas = self.schemas.clone();
            self.read(move |tx| pull::pull(tx, &schemas, device, &asked, now_ms))
        };
        Box::pin(async move {
            let client = asked.client_id;
            let mut pulled = read(asked.clone()).await?;
            if matches!(pulled, Pulled::Unbound) {
                self.write(move |tx| spaces::ensure_bound(tx, device, client).map(|_| ())).await?;
                pulled = read(asked.clone()).await?;
            }
            match pulled {
                Pulled::Page(page, unsaid) => {
                    if !unsaid.is_empty() {
                        self.write(move |tx| conflicts::note_unsaid(tx, &unsaid, now_ms)).await?;
                    }
                    Ok(*page)
                }
                Pulled::Unbound => Err(StoreError::Damaged("a database that was bound is not".to_owned())),
                Pulled::Rewound(space, reached) => {
                    self.write(move |tx| spaces::begin_anew(tx, space, reached)).await?;
                    let why = format!("the file has seen {reached}, which this store never gave: it was restored");
                    Err(Refusal::SnapshotNeeded(why).into())
                }
            }
        })
    }
    fn sums(&self, device: DeviceId, asked: SumsRequest) -> Deed<'_, SumsResponse> {
        let schemas = self.schemas.clone();
        self.read(move |tx| sums::sums(tx, &schemas, device, &asked))
    }
    fn bind_space(&self, binding: rows::Binding) -> Deed<'_, ()> {
        self.write(move |tx| spaces::bind(tx, &binding))
    }
    fn conflicts(&self, page: rows::ConflictsPage) -> Deed<'_, ConflictsResponse> {
        let schemas = self.schemas.clone();
        self.read(move |tx| conflicts::list(tx, &schemas, &page))
    }
    fn forget_rows(&self, before: rows::Forget) -> Deed<'_, u64> {
        self.write(move |tx| conflicts::forget(tx, before))
    }

    fn audit(&self, page: Page) -> Deed<'_, AuditResponse> {
        self.read(move |tx| keys::audit(tx, page))
    }
}

fn make_private(path: &Path) -> io::Result<()> {
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // Before SQLite makes it: the file is never readable for others, and its -wal and -shm take its mode.
    match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        Ok(_) | Err(_) => Ok(()),
    }
}

fn connect(path: &Path) -> Result<Connection, StoreError> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY)?;
    connection.set_prepared_statement_cache_capacity(64);
    connection.execute_batch(
        // FULL: what was acknowledged must survive a power cut. Memory: no temporary files beside the store.
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON; PRAGMA temp_store = MEMORY;",
    )?;
    Ok(connection)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        let text = error.to_string();
        match error.sqlite_error_code() {
            Some(
                ErrorCode::DatabaseBusy
                | ErrorCode::DatabaseLocked
                | ErrorCode::DiskFull
                | ErrorCode::OutOfMemory
                | ErrorCode::CannotOpen
                | ErrorCode::SystemIoFailure
                | ErrorCode::PermissionDenied
                | ErrorCode::ReadOnly,
            ) => Self::Unavailable(text),
            Some(_) | None => Self::Damaged(text),
        }
    }
}

/// A column that holds the text of an id.
fn parsed<T>(row: &Row<'_>, column: usize) -> rusqlite::Result<T>
where
    T: FromStr,
    T::Err: std::error::Error + Send + Sync + 'static,
{
    let text: String = row.get(column)?;
    text.parse().map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// A column that holds a number that only grows from 0.
fn natural(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let number: i64 = row.get(column)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
}

/// A column that holds JSON.
fn json<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<T> {
    json_or_null(row, column)?.ok_or(rusqlite::Error::InvalidColumnType(column, "JSON".to_owned(), Type::Null))
}

/// A column that holds JSON or NULL.
fn json_or_null<T: DeserializeOwned>(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<T>> {
    let text: Option<String> = row.get(column)?;
    text.map(|t| serde_json::from_str(&t)).transpose().map_err(|e| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(e)))
}

/// What is stored for a value that `json` reads.
fn to_json<T: serde::Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| StoreError::Damaged(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    crate::store::contract::suite!({
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("whimbrel.db")).unwrap();
        (store, folder)
    });

    #[test]
    fn only_its_owner_can_read_a_new_store() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("made/whimbrel.db");
        let _store = SqliteStore::open(&path).unwrap();
        let mode = |p: &Path| std::fs::metadata(p).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        for name in ["whimbrel.db", "whimbrel.db-wal"] {
            assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
        }
    }

    #[test]
    fn a_store_of_a_later_server_is_refused_and_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("whimbrel.db");
        drop(SqliteStore::open(&path).unwrap());
        let raw = Connection::open(&path).unwrap();
        raw.execute("INSERT INTO schema_version VALUES (999, 0)", []).unwrap();
        let error = SqliteStore::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Newer { found: 999, .. }), "{error}");
    }

    #[test]
    fn a_file_that_is_no_database_is_damaged_and_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes.txt");
        std::fs::write(&path, "my notes ".repeat(1000)).unwrap();
        let error = SqliteStore::open(&path).err().unwrap();
        assert!(matches!(error, StoreError::Damaged(_)), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "my notes ".repeat(1000));
    }

    #[test]
    fn a_deed_that_panics_gives_its_connection_back_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("whimbrel.db")).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for _ in 0..3 {
                let deed = store.write::<()>(|tx| {
                    tx.execute("INSERT INTO audit VALUES (NULL, 0, 'a', 'b', 'c')", [])?;
                    panic!("on purpose")
                });
                assert!(matches!(deed.await, Err(StoreError::Damaged(_))));
            }
            let page = Page { before: None, limit: 10 };
            assert!(store.audit(page).await.unwrap().entries.is_empty());
        });
    }
}
