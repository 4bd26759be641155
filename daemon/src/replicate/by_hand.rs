//! What a person has done with the rows of one file: conflicts decided, rows in quarantine tried again or dropped, both
//! sides compared, and the file left.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, BufWriter},
    path::{Path, PathBuf},
    time::Duration,
};

use rusqlite::OpenFlags;
use tokio::{runtime::Handle, sync::watch};
use whimbrel_shared::{
    columns::ColumnMap,
    protocol::sums::SumsRequest,
    remedy::{Remedy, here, wait},
    row_schema::RowSchema,
    status::FailureClass,
};

use super::ReplicateError;
use crate::{
    migrate::{
        chain::Chain,
        connection::{Managed, Missing},
        error::{ApplyError, sqlite},
        files::LockFile,
        plan,
        transaction::{Terms, write},
        work::{Looked, Shared, Site},
    },
    store::{
        checkpoint, conflict, journal,
        key::{Key, KeyValue, MOST_KEY_COLUMNS},
        managed,
        private::open_database,
        quarantine,
    },
    sync::{
        boot::Boot,
        decide::{Choice, Deciding, Undecidable},
        detach::{self, Left},
        fold::{Origin, fold},
        standing::{self, Standing},
        tables::Tables,
        verify::{Unequal, Verified, verify},
    },
    transport::{TransportError, server::Server},
};

pub use crate::store::conflict::Conflict;

/// What begins the codes of everything that stands in the way.
pub const CODES: &str = "rows_";
/// How long the application is waited for by whoever only reads.
const READ_PATIENCE: Duration = Duration::from_secs(2);
/// How often a file is compared anew because the application wrote meanwhile.
const COMPARED: u32 = 3;
/// What the application gets between two reads of a comparison.
const REST: Duration = Duration::from_millis(1);
/// Files with what was left are numbered from the second on; beyond this somebody ought to clear up.
const MOST_LEFT: u32 = 100;

/// What a person wants done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// A conflict is decided.
    Resolve {
        /// Its number.
        conflict: i64,
        /// How.
        choice: Choice,
    },
    /// What waits in quarantine is tried again.
    RetryWaiting,
    /// A row in quarantine is done without.
    DropWaiting {
        /// Its table, by name.
        table: String,
        /// Its key, as a person writes it: a text per column.
        key: Vec<String>,
    },
}

/// Why it was not done. The file is as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A short stable code that begins with [`CODES`].
    pub code: &'static str,
    /// What.
    pub message: String,
    /// What to do.
    pub remedy: Remedy,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>, remedy: Remedy) -> Self {
        Self { code, message: message.into(), remedy }
    }
}

impl From<ApplyError> for Refusal {
    fn from(error: ApplyError) -> Self {
        let code = if error.class() == FailureClass::Transient { "rows_busy" } else { "rows_failed" };
        let remedy = if code == "rows_busy" { here("try it again in a moment") } else { error.remedy() };
        Self::new(code, error.to_string(), remedy)
    }
}

impl From<Undecidable> for Refusal {
    fn from(error: Undecidable) -> Self {
        Self::new("rows_undecided", error.to_string(), error.remedy())
    }
}

impl From<TransportError> for Refusal {
    fn from(error: TransportError) -> Self {
        Self::new("rows_offline", error.to_string(), error.remedy())
    }
}

impl From<crate::store::StoreError> for Refusal {
    fn from(error: crate::store::StoreError) -> Self {
        ApplyError::from(error).into()
    }
}

impl From<crate::sync::error::SyncError> for Refusal {
    fn from(error: crate::sync::error::SyncError) -> Self {
        ApplyError::from(error).into()
    }
}

impl From<ReplicateError> for Refusal {
    fn from(error: ReplicateError) -> Self {
        match error {
            ReplicateError::Server(error) => error.into(),
            ReplicateError::File(error) => error.into(),
        }
    }
}

/// What a version says about rows.
#[derive(Clone, Debug)]
pub struct Says {
    /// The version.
    pub version: u32,
    /// Which tables exchange rows.
    pub rows: RowSchema,
    /// Ids and names.
    pub map: ColumnMap,
}

impl Says {
    /// At `version`. The error: that version exchanges none.
    pub fn at(chain: &Chain, version: u32) -> Result<Self, Refusal> {
        let none = |why: String| Refusal::new("rows_none", why, here("`[sync.TABLE]` in a migration's manifest says which tables do"));
        let rows = chain.rows_at(version).map_err(none)?;
        let map = rows.map().map_err(|why| none(why.to_string()))?;
        if rows.synced().0.is_empty() {
            return Err(none(format!("version {version} exchanges no rows")));
        }
        Ok(Self { version, rows, map })
    }
}

/// Does what a person wants with the rows of a file, while its schema is the one that its version has. Returns what was done,
/// in words, and how the rows stand after it.
pub fn decide(shared: &Shared, site: &Site, looked: &Looked, chain: &Chain, deed: &Deed) -> Result<(String, Option<Standing>), Refusal> {
    let says = Says::at(chain, looked.position)?;
    let mut file = open(shared, &site.path)?;
    if !journal::is_there(&file.connection)? {
        return Err(Refusal::new("rows_none", "the file exchanges no rows yet", wait("it begins to with its next exchange")));
    }
    let Some(ready) = &looked.rows.ready else {
        let remedy = here("`whimbrel status` says what stands in the way; decide it when that is done");
        return Err(Refusal::new("rows_not_ready", "the file is not as its version says, or a migration of it is half done", remedy));
    };
    let key = match deed {
        Deed::DropWaiting { table, key } => Some(waiting(&file, &says, table, key)?),
        Deed::Resolve { .. } | Deed::RetryWaiting => None,
    };
    let now_ms = shared.ambient.now_ms();
    let boot = Boot::of_machine(now_ms);
    let terms = Terms::ours(shared.policy.wait_for_app);
    let (done, _) = write(&mut file, terms, |file| {
        if !ready.holds(&file.connection)? {
            return Err(ApplyError::Moved("another version began meanwhile".to_owned()));
        }
        let tables = Tables::open(&file.connection, &says.map, says.rows.synced())?;
        let at = Deciding { connection: &file.connection, tables: &tables, version: says.version, boot: &boot, now_ms };
        Ok(match (deed, &key) {
            (Deed::Resolve { conflict, choice }, _) => at.resolve(*conflict, *choice)?,
            (Deed::DropWaiting { .. }, Some((table, key))) => at.drop_waiting(*table, key)?,
            (Deed::RetryWaiting, _) | (Deed::DropWaiting { .. }, None) => {
                let (landed, left) = at.retry_waiting()?;
                Ok(format!("{landed} landed, {left} wait"))
            }
        })
    })?;
    Ok((done?, standing::read(&file.connection)?))
}

/// The rows of a file that wait for somebody, to be read.
#[derive(Debug)]
pub struct Rows {
    file: rusqlite::Connection,
    /// Ids and names at the version in place.
    pub map: ColumnMap,
    key_columns: BTreeMap<u32, usize>,
}

impl Rows {
    /// Opens a file; none where it exchanges no rows. Writes nothing.
    pub fn open(site: &Site, looked: &Looked, chain: &Chain) -> Result<Option<Self>, Refusal> {
        let doing = "opening the file to read it";
        let file = open_database(&site.path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(sqlite(doing))?;
        file.busy_timeout(READ_PATIENCE).and_then(|()| file.pragma_update(None, "query_only", true)).map_err(sqlite(doing))?;
        if !journal::is_there(&file)? {
            return Ok(None);
        }
        let (map, key_columns) = match Says::at(chain, looked.position) {
            Ok(says) => (says.map, says.rows.synced().0.iter().map(|(id, synced)| (*id, synced.key.len())).collect()),
            // What was exchanged at an older version may wait still.
            Err(_) => (ColumnMap::default(), BTreeMap::new()),
        };
        Ok(Some(Self { file, map, key_columns }))
    }

    /// Conflicts, newest first, and how many there are: those that wait, or all, or the one with a number.
    pub fn conflicts(&self, id: Option<i64>, all: bool, most: u32) -> Result<(Vec<Conflict>, u64), Refusal> {
        let columns = |table: u32| self.key_columns.get(&table).copied();
        if let Some(id) = id {
            let found: Vec<Conflict> = conflict::get(&self.file, id, &columns)?.into_iter().collect();
            let total = found.len() as u64;
            return Ok((found, total));
        }
        let (open, total) = conflict::count(&self.file)?;
        Ok((conflict::list(&self.file, !all, None, most, &columns)?, if all { total } else { open }))
    }

    /// Rows in quarantine, and how many there are.
    pub fn waiting(&self, most: u32) -> Result<(Vec<quarantine::Waiting>, u64), Refusal> {
        let columns = |table: u32| Some(self.key_columns.get(&table).copied().unwrap_or(MOST_KEY_COLUMNS));
        Ok((quarantine::list(&self.file, most as usize, &columns)?, quarantine::count(&self.file)?))
    }
}

/// The table's id and the key of the row in quarantine that a person means.
fn waiting(file: &Managed, says: &Says, table: &str, key: &[String]) -> Result<(u32, Key), Refusal> {
    let lists = || here("`whimbrel quarantine list` shows the rows that wait, with their tables and keys");
    let Some(found) = says.map.table(table) else {
        return Err(Refusal::new("rows_unknown", format!("version {} has no table {table:?}", says.version), lists()));
    };
    let tables = Tables::open(&file.connection, &says.map, says.rows.synced())?;
    let collations = tables.get(found.id).map(|t| t.collations.clone()).unwrap_or_default();
    if collations.len() != key.len() {
        let message = format!("the key of {} has {} columns, and {} are given", found.name, collations.len(), key.len());
        return Err(Refusal::new("rows_unknown", message, lists()));
    }
    // A text may stand for a number: both are looked for.
    let mut keys: Vec<Vec<KeyValue>> = vec![Vec::new()];
    for text in key {
        let number = text.parse().ok().map(KeyValue::Integer);
        let may = number.into_iter().chain([KeyValue::Text(text.clone().into_bytes())]);
        keys = may.flat_map(|value| keys.iter().map(move |before| [before.clone(), vec![value.clone()]].concat())).collect();
    }
    for key in keys {
        let key = Key(key).canonical(&collations);
        if quarantine::get(&file.connection, found.id, &key)?.is_some() {
            return Ok((found.id, key));
        }
    }
    let message = format!("no row {} of {} waits in quarantine", key.join(", "), found.name);
    Err(Refusal::new("rows_unknown", message, lists()))
}

/// Compares a file with its space, after an exchange.
pub fn compare(
    shared: &Shared,
    site: &Site,
    looked: &Looked,
    chain: &Chain,
    server: &Server,
    handle: &Handle,
    mut stop: watch::Receiver<bool>,
) -> Result<Verified, Refusal> {
    let says = Says::at(chain, looked.position)?;
    let file = open(shared, &site.path)?;
    let asked = SumsRequest { client_id: looked.identity.client_id, schema: says.version };
    let mut why = Unequal::Written;
    for _ in 0..COMPARED {
        let sums = handle.block_on(async {
            tokio::select! {
                sums = server.sums(&asked) => sums,
                Ok(_) = stop.wait_for(|stop| *stop) => Err(TransportError::AskedToWait { left: Duration::ZERO }),
            }
        })?;
        let tables = Tables::open(&file.connection, &says.map, says.rows.synced())?;
        match verify(&file.connection, &tables, &says.map, &sums.tables, sums.version, &mut || std::thread::sleep(REST))? {
            Ok(verified) => return Ok(verified),
            Err(again @ Unequal::Written) => why = again,
            Err(other) => {
                why = other;
                break;
            }
        }
    }
    Err(Refusal::new("rows_not_compared", format!("the file cannot be compared now: {why}"), here("run `whimbrel sync --verify` again in a moment")))
}

/// What leaving a file came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gone {
    /// What was not exchanged.
    pub left: Left,
    /// The file beside the database that has it; none where there was nothing.
    pub file: Option<PathBuf>,
    /// Objects that were removed.
    pub objects: usize,
}

/// Writes down what was not exchanged and removes whimbrel's objects from the file, in one transaction. The application may
/// have it open. Refused while a migration is half done.
pub fn leave(shared: &Shared, site: &Site, chain: &Chain, keep_history: bool) -> Result<Gone, Refusal> {
    let _lock = LockFile::hold(&site.path, shared.policy.wait_for_app, &shared.halt)?;
    let mut file = open(shared, &site.path)?;
    if !managed::is_prepared(&file.connection)? {
        return Ok(Gone::default());
    }
    if managed::intent(&file.connection)?.is_some() || checkpoint::checkpoint(&file.connection)?.is_some() {
        let remedy = here("let it end, or take it back with `whimbrel revert`; then detach");
        return Err(Refusal::new("rows_half_done", "a migration of the file is half done", remedy));
    }
    let version = plan::position(&managed::history(&file.connection)?);
    let (map, synced) = Says::at(chain, version).map(|says| (says.map, says.rows.synced().clone())).unwrap_or_default();
    let now_ms = shared.ambient.now_ms();
    let boot = Boot::of_machine(now_ms);
    let captured = journal::is_there(&file.connection)?;
    let (mut gone, mut broken) = (Gone::default(), None);
    let written = write(&mut file, Terms::ours(shared.policy.wait_for_app), |file| {
        if let Some(before) = gone.file.take() {
            // The transaction is tried again; nobody has seen what the first try wrote.
            let _ = fs::remove_file(before);
        }
        gone = Gone::default();
        if captured {
            fold(&file.connection, &boot, Origin::App, now_ms, None)?;
            gone.left = detach::left(&file.connection)?;
            if !gone.left.is_empty() {
                let tables = Tables::open(&file.connection, &map, &synced)?;
                let written = create(&site.path).map(|(path, to)| {
                    gone.file = Some(path);
                    let mut to = BufWriter::new(to);
                    let written = detach::write_down(&file.connection, &tables, now_ms, &mut to)?;
                    let synced = written.and_then(|()| to.into_inner()?.sync_all()).and_then(|()| sync_folder(&site.path));
                    Ok::<_, ApplyError>(synced)
                });
                match written {
                    Ok(written) => broken = written?.err(),
                    Err(error) => broken = Some(error),
                }
                if let Some(error) = &broken {
                    return Err(ApplyError::Moved(format!("what was not exchanged cannot be written down: {error}")));
                }
            }
        }
        gone.objects = detach::remove(&file.connection, keep_history)?;
        Ok(())
    });
    let Err(error) = written else { return Ok(gone) };
    if let Some(path) = gone.file {
        // Nothing was taken out of the database, so what it says is not so. A file that cannot be removed harms nobody.
        let _ = fs::remove_file(path);
    }
    Err(match broken {
        None => Refusal::from(error),
        Some(why) => Refusal::new(
            "rows_failed",
            format!("what was not exchanged cannot be written beside {}: {why}", site.path.display()),
            here("let the daemon's user write there, or free some disk space"),
        ),
    })
}

/// The name of a new file is on the disk when its folder is.
fn sync_folder(database: &Path) -> io::Result<()> {
    database.parent().map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}

/// A new file beside the database, for its owner alone.
fn create(database: &Path) -> io::Result<(PathBuf, File)> {
    let mut options = File::options();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    for number in 1..=MOST_LEFT {
        let mut name = database.as_os_str().to_owned();
        name.push(if number == 1 { "-whimbrel-left.json".to_owned() } else { format!("-whimbrel-left-{number}.json") });
        match options.open(&name) {
            Ok(file) => return Ok((PathBuf::from(name), file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other(format!("there are {MOST_LEFT} such files already")))
}

fn open(shared: &Shared, path: &Path) -> Result<Managed, Refusal> {
    Ok(Managed::open(path, Missing::Refuse, shared.policy.wait_for_app, shared.halt.clone())?)
}
