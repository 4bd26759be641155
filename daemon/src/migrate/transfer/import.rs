//! Rows in: by the same upsert as a `load` step, in short transactions with gaps for the application.

use std::{
    collections::HashSet,
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};
use whimbrel_shared::manifest::{Load, LoadConflict, OnError};

use super::{Header, Line, TransferError, may_open};
use crate::{
    migrate::{
        connection::{Managed, Missing},
        error::{ApplyError, NAMED, sqlite},
        files::LockFile,
        foreign::{NewViolation, Violations},
        gap::Gap,
        halt::Halt,
        perform::explain,
        rows::{Chunk, Part, load::Loading, records::Record, size::Size, table::from_json},
        transaction::{Terms, write},
    },
    store::{checkpoint, managed},
};

/// How long the application is waited for, for each part.
const PATIENCE: Duration = Duration::from_secs(120);
/// How long somebody else's work on the file is waited for: a look of the daemon's passes, a migration does not.
const OTHERS: Duration = Duration::from_secs(2);
/// Longest that the statements of one part may run.
const TIMEOUT: Duration = Duration::from_secs(600);

/// Which rows, and what becomes of rows that are there.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// The tables; none: all that the export has.
    pub tables: Vec<String>,
    /// Columns that identify a row; none: the primary key.
    pub key: Vec<String>,
    /// What happens to a row that is there already.
    pub conflict: LoadConflict,
    /// Column that tells the newer of two rows.
    pub newest: Option<String>,
}

/// What became of one table's rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// The table.
    pub table: String,
    /// Rows of the file.
    pub rows: u64,
    /// Rows put in or changed.
    pub changed: u64,
}

/// Puts the rows of `source` in: an export, or, with one table named, NDJSON or CSV of its rows. `watch` is told how many
/// bytes of how many were read. What was committed stays, whatever happens after it; the same import again leaves it as it
/// is. Foreign keys are judged when all rows are in: what refers to nothing then, and did not before, is an error that names
/// it. Refused while a migration is under way or another whimbrel works on the file.
pub fn import(path: &Path, source: &Path, wanted: &Wanted, watch: &mut dyn FnMut(u64, u64)) -> Result<Vec<Imported>, TransferError> {
    may_open(path)?;
    let unreadable = |error| TransferError::Io { path: source.to_owned(), source: error };
    let mut reader = BufReader::new(File::open(source).map_err(unreadable)?);
    let total = reader.get_ref().metadata().map_err(unreadable)?.len();
    let halt = Halt::default();
    let _lock = LockFile::hold(path, OTHERS, &halt)?;
    let mut file = Managed::open(path, Missing::Refuse, PATIENCE, halt)?;
    if managed::is_prepared(&file.connection).map_err(ApplyError::from)? {
        let intent = managed::intent(&file.connection).map_err(ApplyError::from)?;
        if intent.is_some() || checkpoint::checkpoint(&file.connection).map_err(ApplyError::from)?.is_some() {
            return Err(TransferError::UnderWay);
        }
    }
    let before = violations(&mut file)?;
    let mut importer = Importer { file, source, wanted, size: Size::new(None), gap: Gap::for_chunks(), found: Vec::new() };
    let mut first = String::new();
    reader.read_line(&mut first).map_err(unreadable)?;
    match serde_json::from_str::<Header>(&first) {
        Ok(header) => importer.export(&header, reader, first.len() as u64, &mut |read| watch(read, total))?,
        Err(_) => {
            let [table] = wanted.tables.as_slice() else { return Err(TransferError::WhichTable { path: source.to_owned() }) };
            reader.read_to_string(&mut first).map_err(unreadable)?;
            importer.plain(table, &first)?;
            watch(total, total);
        }
    }
    let new = before.0.new_in(violations(&mut importer.file)?.1);
    if !new.is_empty() {
        return Err(ApplyError::NewViolations { total: new.len(), rows: new.into_iter().take(NAMED + 1).map(|v| v.0).collect() }.into());
    }
    Ok(importer.found)
}

/// Rows that refer to nothing, in any table.
fn violations(file: &mut Managed) -> Result<(Violations, Vec<(String, NewViolation)>), ApplyError> {
    file.schema.read(&file.connection).map_err(sqlite("reading the schema"))?;
    Violations::read(&file.connection, &file.schema, None).map_err(sqlite("checking foreign keys"))
}

struct Importer<'a> {
    file: Managed,
    source: &'a Path,
    wanted: &'a Wanted,
    size: Size,
    gap: Gap,
    found: Vec<Imported>,
}

impl Importer<'_> {
    /// The lines of an export after its first.
    fn export(&mut self, header: &Header, reader: impl BufRead, begun: u64, watch: &mut dyn FnMut(u64)) -> Result<(), TransferError> {
        let there: Vec<String> = header.tables.iter().map(|t| t.table.clone()).collect();
        if let Some(missing) = self.wanted.tables.iter().find(|w| !there.iter().any(|t| t.eq_ignore_ascii_case(w))) {
            return Err(TransferError::NoTable { table: missing.clone(), there });
        }
        let (mut read, mut number) = (begun, 1);
        let (mut loading, mut pending): (Option<Loading>, Vec<Record>) = (None, Vec::new());
        for text in reader.lines() {
            let text = text.map_err(|source| TransferError::Io { path: self.source.to_owned(), source })?;
            (read, number) = (read + text.len() as u64 + 1, number + 1);
            if text.trim().is_empty() {
                continue;
            }
            let wrong = |why: String| TransferError::Line { path: self.source.to_owned(), line: number, why };
            let line: Line = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
            if !self.wanted.tables.is_empty() && !self.wanted.tables.iter().any(|w| w.eq_ignore_ascii_case(&line.table)) {
                continue;
            }
            let (columns, values): (Vec<String>, Vec<serde_json::Value>) = line.row.into_iter().unzip();
            let values = values.into_iter().map(from_json).collect::<Result<_, _>>().map_err(wrong)?;
            let record = Record { line: number, columns: columns.into(), values };
            if loading.as_ref().is_none_or(|l| !l.table.name.eq_ignore_ascii_case(&line.table)) {
                self.put(loading.as_mut(), &mut pending)?;
                loading = Some(self.loading(&line.table, "")?);
            }
            pending.push(record);
            if pending.len() >= self.size.rows() as usize {
                self.put(loading.as_mut(), &mut pending)?;
                watch(read);
            }
        }
        self.put(loading.as_mut(), &mut pending)?;
        watch(read);
        Ok(())
    }

    /// A file of one table's rows, just as a `load` step reads it.
    fn plain(&mut self, table: &str, text: &str) -> Result<(), TransferError> {
        let mut loading = self.loading(table, text)?;
        let (mut position, none) = (None::<String>, HashSet::new());
        loop {
            let rows = self.size.rows();
            let at = position.clone();
            let chunk = self.commit(|file| loading.chunk(file, &Part { position: at.as_deref(), rows, failed: &none }))?;
            self.count(&loading, &chunk);
            if chunk.end {
                return Ok(());
            }
            position = Some(chunk.position);
        }
    }

    /// The step that puts rows into `table`.
    fn loading(&self, table: &str, text: &str) -> Result<Loading, TransferError> {
        let name = self.source.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        // The form of a plain file is told by its name; an export is NDJSON whatever it is called.
        let file = if text.is_empty() { format!("{name}.ndjson") } else { name };
        let key = if self.wanted.key.is_empty() { self.primary_key(table)? } else { self.wanted.key.clone() };
        let step = Load {
            file,
            into: table.to_owned(),
            key,
            conflict: self.wanted.conflict,
            newest: self.wanted.newest.clone(),
            clear_existing: false,
            since: false,
            on_error: OnError::Stop,
            batch: None,
        };
        Ok(Loading::new(&self.file, &step, text, format!("import into {table}"))?)
    }

    fn primary_key(&self, table: &str) -> Result<Vec<String>, TransferError> {
        let key: Vec<String> = self
            .file
            .connection
            .prepare("SELECT name FROM pragma_table_info(?1) WHERE pk > 0 ORDER BY pk")
            .and_then(|mut s| s.query_map([table], |row| row.get(0))?.collect())
            .map_err(sqlite("reading the key"))?;
        if key.is_empty() { Err(TransferError::NoKey { table: table.to_owned() }) } else { Ok(key) }
    }

    fn put(&mut self, loading: Option<&mut Loading>, pending: &mut Vec<Record>) -> Result<(), TransferError> {
        let Some(loading) = loading.filter(|_| !pending.is_empty()) else { return Ok(()) };
        let records: Vec<&Record> = pending.iter().collect();
        let chunk = self.commit(|file| loading.put(file, &records))?;
        self.count(loading, &chunk);
        pending.clear();
        Ok(())
    }

    /// One short transaction, and the gap after it.
    fn commit(&mut self, mut work: impl FnMut(&Managed) -> Result<Chunk, ApplyError>) -> Result<Chunk, TransferError> {
        // A row may come before the one that it refers to: keys are judged at the end.
        let terms = Terms::ours(PATIENCE);
        let ((chunk, took), held) = write(&mut self.file, terms, |file| {
            let begun = Instant::now();
            let on = file.guard.on(TIMEOUT, false);
            let ran = work(file);
            let stopped = file.guard.stopped();
            drop(on);
            Ok((ran.map_err(|error| explain(error, stopped, TIMEOUT))?, begun.elapsed()))
        })?;
        self.size.took(chunk.examined, took, held.saturating_sub(took));
        self.gap.leave(&self.file, held)?;
        Ok(chunk)
    }

    fn count(&mut self, loading: &Loading, chunk: &Chunk) {
        let table = &loading.table.name;
        let at = self.found.iter().position(|f| f.table == *table).unwrap_or_else(|| {
            self.found.push(Imported { table: table.clone(), ..Imported::default() });
            self.found.len() - 1
        });
        self.found[at].rows += chunk.examined;
        self.found[at].changed += chunk.changed;
    }
}
