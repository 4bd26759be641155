//! A chain as a publisher makes it, a real file, the real engine, and a server that takes what it is told.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use rusqlite::{Connection, types::Value};
use whimbrel::{
    ambient::Ambient,
    migrate::{
        apply::{self, Job, Policy, Ran},
        chain::Chain,
        connection::{Managed, Missing},
        files,
        halt::Halt,
        live::Live,
        recover,
        transaction::{Terms, write},
    },
    publish,
    store::{
        journal,
        key::Key,
        managed::{self, FileIdentity},
        outbox::{Deed, Edit, Entry, Outbox, Recorded, Sent, Stamp, known_after},
    },
    sync::{
        across,
        capture::{self, captured},
        fold::{Boot, Origin, fold},
        rows::{Columns, Rows},
        shape::Mode,
        sweep::sweep,
    },
    trust::AcceptError,
};
use whimbrel_shared::{
    ids::ClientId,
    status::{AskedBy, Operation},
    trust::verify,
};

const PATIENCE: Duration = Duration::from_secs(10);
pub(crate) const POLICY: Policy = Policy { max_attempts: 3, grouping: true, wait_for_app: PATIENCE, report_values: false, skip_verify: false };

/// A folder, in memory where there is such a place: what a sync costs is not looked at here.
pub(crate) fn scratch() -> tempfile::TempDir {
    let shm = std::path::Path::new("/dev/shm");
    if shm.is_dir() { tempfile::tempdir_in(shm) } else { tempfile::tempdir() }.unwrap()
}

/// A published chain.
pub(crate) struct Published {
    pub(crate) chain: Chain,
    bodies: Vec<Vec<u8>>,
}

/// Publishes the files of a migrations directory.
pub(crate) fn publish(files: &[(String, String)]) -> Published {
    let folder = tempfile::tempdir().unwrap();
    for (path, text) in files {
        let path = folder.path().join("migrations").join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    let (read, _) = publish::read(&folder.path().join("migrations"), None, false).unwrap();
    let rehearsal = publish::rehearse::rehearse(&read, false, &mut |_| {}).unwrap_or_else(|e| panic!("{e}: {files:#?}"));
    let errors: Vec<_> = rehearsal.findings.iter().filter(|f| f.level == publish::lint::Level::Error).collect();
    assert!(errors.is_empty(), "{errors:#?} in {files:#?}");
    let links = publish::compare::links(&read, &rehearsal, &"notes".parse().unwrap(), &publish::compare::Found::default(), None).unwrap();
    let (entries, bodies) = links.into_iter().map(|link| (link.target, link.body.into_bytes())).unzip();
    Published { chain: Chain::new(entries), bodies }
}

/// As text, for tables written by hand.
pub(crate) fn files(files: &[(&str, &str)]) -> Vec<(String, String)> {
    files.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// What became of a row that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It was not sent.
    NotSent,
    /// It was sent, and no answer came.
    None,
    /// The server has it.
    Accepted,
    /// It was not sent, and a later version of the row came down, whose columns are others.
    Another,
}

/// A file of an application.
pub(crate) struct Bed<'p> {
    published: &'p Published,
    pub(crate) path: PathBuf,
    identity: FileIdentity,
    /// The server's last number.
    pub(crate) version: u64,
    _folder: tempfile::TempDir,
}

/// A dirty cell: its table's and column's names, and its key, as the file has them. No column: the row was deleted, or is
/// inserted and has nothing but its key.
pub(crate) type Cell = (String, Vec<String>, Option<String>);

/// What is kept of it.
#[derive(Clone, Debug, Eq)]
pub(crate) struct Dirt {
    pub(crate) deed: Deed,
    /// Without its columns.
    pub(crate) edit: Edit,
    /// What the row holds there.
    pub(crate) value: Option<String>,
}

/// The kernel tells the time of the boot to a millisecond, so each fold may put an edit one beside the other.
impl PartialEq for Dirt {
    fn eq(&self, other: &Self) -> bool {
        let plain = |of: &Self| Edit { stamp: Stamp { wall_ms: 0, ..of.edit.stamp }, ..of.edit.clone() };
        let near = self.edit.stamp.wall_ms.abs_diff(other.edit.stamp.wall_ms) <= 5;
        near && (self.deed, plain(self), &self.value) == (other.deed, plain(other), &other.value)
    }
}

impl<'p> Bed<'p> {
    pub(crate) fn new(published: &'p Published) -> Self {
        let folder = scratch();
        let path = folder.path().join("app.db");
        Connection::open(&path).unwrap().execute_batch("PRAGMA journal_mode = wal").unwrap();
        let identity = files::new_identity(ClientId::from_dice(1), &"notes".parse().unwrap(), files::place(&path).unwrap());
        let bed = Self { published, path, identity, version: 0, _folder: folder };
        write(&mut bed.open(), Terms::ours(PATIENCE), |file| Ok(managed::prepare(&file.connection, &bed.identity)?)).unwrap();
        bed
    }

    pub(crate) fn open(&self) -> Managed {
        Managed::open(&self.path, Missing::Refuse, PATIENCE, Halt::default()).unwrap()
    }

    /// The application's connection.
    pub(crate) fn app(&self) -> Connection {
        Connection::open(&self.path).unwrap()
    }

    /// The same application's file, in another folder.
    pub(crate) fn at(&self, folder: tempfile::TempDir) -> Self {
        let path = folder.path().join("app.db");
        Self { published: self.published, path, identity: self.identity.clone(), version: self.version, _folder: folder }
    }

    pub(crate) fn run(&self, operation: Operation, from: u32, to: u32) -> Ran {
        self.run_in(&mut self.open(), operation, from, to)
    }

    /// Applies one version on a connection that was opened elsewhere, unless it is in place, and it has to go well.
    pub(crate) fn run_on(&self, connection: Connection, version: u32) {
        let mut file = Managed::adopt(connection, PATIENCE, Halt::default()).unwrap();
        let ran = self.run_in(&mut file, Operation::Apply, version, version);
        assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
    }

    /// Takes up what a process that died left behind.
    pub(crate) fn recover(&self) {
        recover::recover(&mut self.open(), &self.identity, &self.published.chain, &Ambient::real(), POLICY, false).unwrap();
    }

    fn run_in(&self, file: &mut Managed, operation: Operation, from: u32, to: u32) -> Ran {
        let load = |version: u32, _: u32| {
            verify(self.published.chain.newest(version).unwrap(), &self.published.bodies[version as usize - 1]).map_err(AcceptError::from)
        };
        let (identity, chain, policy) = (&self.identity, &self.published.chain, POLICY);
        let (ambient, live, by) = (&Ambient::real(), &Live::default(), AskedBy::Plan);
        apply::run(file, &Job { identity, chain, load: &load, operation, from, to, by, policy, ambient, live })
    }

    /// Applies or reverts, and it has to go well.
    pub(crate) fn go(&self, operation: Operation, from: u32, to: u32) {
        let ran = self.run(operation, from, to);
        assert!(ran.stopped.is_none(), "{:?}", ran.stopped);
    }

    /// Captures what rows are exchanged of at `version`, as a look does.
    pub(crate) fn capture(&self, version: u32, mode: Mode) {
        let rows = self.published.chain.rows_at(version).unwrap();
        let map = rows.map().unwrap();
        let wanted = across::wanted(rows.synced(), &map, mode);
        self.write(|c| {
            let judged = capture::install(c, &map, &wanted, 0).unwrap();
            assert!(judged.iter().all(|j| j.captured.is_some()), "{judged:?}");
        });
    }

    pub(crate) fn write<T>(&self, work: impl Fn(&Connection) -> T) -> T {
        write(&mut self.open(), Terms::ours(PATIENCE), |file| Ok(work(&file.connection))).unwrap().0
    }

    /// Looks through every table.
    pub(crate) fn sweep_all(&self) {
        self.write(|c| {
            for table in captured(c).unwrap() {
                journal::mark_sweep(c, table.id, journal::SweepReason::Asked, 0).unwrap();
            }
            fold_on(c);
        });
    }

    /// The server takes everything that waits.
    pub(crate) fn acknowledge(&mut self) {
        self.exchange(&mut || Answer::Accepted);
    }

    /// What waits is sent, as it is now, and each row gets its answer.
    pub(crate) fn exchange(&mut self, answer: &mut dyn FnMut() -> Answer) {
        let mut version = self.version;
        let (path, connection) = (self.path.clone(), self.open().connection);
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        fold_on(&connection);
        for table in captured(&connection).unwrap() {
            let (mut outbox, mut rows) = (Outbox::open(&connection).unwrap(), Rows::new(&connection, &table));
            for key in known_after(&connection, table.id, None, table.key.len(), usize::MAX >> 1).unwrap() {
                let Some(mut entry) = outbox.entry(table.id, &key).unwrap() else { continue };
                version += 1;
                match answer() {
                    Answer::NotSent => {}
                    Answer::None => {
                        entry.edits.iter_mut().for_each(|edit| edit.sent = Sent::As(version));
                        outbox.put(table.id, &key, Some(&entry)).unwrap();
                    }
                    Answer::Accepted => {
                        let now = rows.read(&key, Columns::All).unwrap();
                        outbox.put(table.id, &key, None).unwrap();
                        outbox.record(table.id, &key, now.map(|hashes| Recorded { version, hashes, ..Recorded::default() }).as_ref()).unwrap();
                    }
                    Answer::Another => {
                        if let Some(known) = outbox.recorded(table.id, &key).unwrap() {
                            outbox.record(table.id, &key, Some(&Recorded { version, ..known })).unwrap();
                        }
                    }
                }
            }
        }
        connection.execute_batch("COMMIT").unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.version = version;
    }

    /// What waits, cell by cell, as if everything were folded; the file stays as it is.
    pub(crate) fn dirty(&self) -> BTreeMap<Cell, Dirt> {
        let connection = self.open().connection;
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        fold_on(&connection);
        let mut found = BTreeMap::new();
        for table in captured(&connection).unwrap() {
            let mut outbox = Outbox::open(&connection).unwrap();
            for key in known_after(&connection, table.id, None, table.key.len(), usize::MAX >> 1).unwrap() {
                let Some(entry) = outbox.entry(table.id, &key).unwrap() else { continue };
                for (column, edit) in cells(&entry) {
                    let name = column
                        .map(|id| table.tracked().iter().find(|c| c.0 == id).unwrap_or_else(|| panic!("column {id} of {table:?}")).1.to_owned());
                    let value = name.as_ref().and_then(|name| value(&connection, &table.name, &table.key[0].name, &key, name));
                    let dirt = Dirt { deed: entry.deed, edit, value };
                    assert!(found.insert((table.name.clone(), text(&key), name), dirt).is_none(), "a column is in two edits");
                }
            }
        }
        connection.execute_batch("ROLLBACK").unwrap();
        found
    }

    /// What is archived: table, key as JSON, column, value.
    pub(crate) fn archive(&self) -> Vec<(String, String, Option<String>, Option<String>)> {
        let app = self.app();
        let there = journal::is_there(&app).unwrap();
        if !there {
            return Vec::new();
        }
        let mut statement = app.prepare("SELECT name, key, column_name, CAST(value AS TEXT) FROM _whimbrel_archive ORDER BY 1, 2, 3").unwrap();
        statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?))).unwrap().map(Result::unwrap).collect()
    }

    pub(crate) fn value<T: rusqlite::types::FromSql>(&self, sql: &str) -> T {
        self.app().query_row(sql, [], |row| row.get(0)).unwrap_or_else(|e| panic!("{sql}: {e}"))
    }
}

fn fold_on(connection: &Connection) {
    let now_ms = Ambient::real().now_ms();
    fold(connection, &Boot::of_machine(now_ms), Origin::App, now_ms, None).unwrap();
    while sweep(connection, 1_000).unwrap().more {}
}

/// The columns of an entry, each with its edit; one without a column where there is none.
fn cells(entry: &Entry) -> Vec<(Option<u32>, Edit)> {
    let bare = |edit: &Edit| Edit { columns: Vec::new(), ..edit.clone() };
    let all: Vec<_> = entry.edits.iter().flat_map(|e| e.columns.iter().map(move |id| (Some(*id), bare(e)))).collect();
    if all.is_empty() { vec![(None, bare(&entry.edits[0]))] } else { all }
}

fn value(connection: &Connection, table: &str, key_column: &str, key: &Key, column: &str) -> Option<String> {
    let sql = format!("SELECT CAST(\"{column}\" AS TEXT) FROM \"{table}\" WHERE \"{key_column}\" = ?1");
    connection.query_row(&sql, [&key.0[0]], |row| row.get(0)).unwrap_or(None)
}

pub(crate) fn text(key: &Key) -> Vec<String> {
    let one = |value: &whimbrel::store::key::KeyValue| match rusqlite::ToSql::to_sql(value).unwrap() {
        rusqlite::types::ToSqlOutput::Borrowed(value) => match Value::try_from(value).unwrap() {
            Value::Text(text) => text,
            other => format!("{other:?}"),
        },
        other => format!("{other:?}"),
    };
    key.0.iter().map(one).collect()
}
