//! One migration's steps inside a transaction that somebody else opened: run under the guard, then judged. What decides
//! whether it may be committed is all here, so that a device, a rehearsal and a private copy judge alike.

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use rusqlite::{Connection, config::DbConfig};
use whimbrel_shared::{
    fingerprint::{Schema, SchemaChange},
    manifest::{ForeignKeys, LegacyAlterTable, Manifest, Rebuild},
    migration::Migration,
};

use super::{
    connection::Managed,
    error::{ApplyError, sqlite},
    foreign::Violations,
    guard::{Instruction, RESERVED, Stopped, Touched},
    rebuild::{self, Rebuilding},
    rows::{FailedItem, Part, RowStep},
    schema::Changes,
    script::{self, Reading, ScriptError},
    units::{Unit, Work},
};

/// Rows of one statement of a row step where there is one transaction anyway.
const ROWS_AT_ONCE: u32 = 10_000;

/// What was known of the file before the run, so that the migration is blamed only for its own doing.
#[derive(Clone, Debug, Default)]
pub struct Before {
    /// Foreign-key violations that were there. `None`: not looked at, and then any violation asks for a look.
    pub violations: Option<Violations>,
    /// Views and triggered tables that did not compile.
    pub broken: BTreeSet<String>,
    /// Whether edits of rows are captured in it.
    pub captured: bool,
}

/// What performed units did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Performed {
    /// Statements run.
    pub statements: usize,
    /// Rows changed.
    pub rows: u64,
    /// Rows that row steps looked at and that needed nothing.
    pub skipped: u64,
    /// Rows that failed in steps that collect them, with the number of their step.
    pub failed: Vec<(usize, FailedItem)>,
    /// Tables into which rows may have come, from which they may have gone, or in which they may have changed; lower case.
    pub written: BTreeSet<String>,
}

/// What is being done right now, for whoever watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AtStep {
    /// Number of the step, from 1.
    pub step: usize,
    /// How many there are.
    pub steps: usize,
    /// Number of the statement in it, from 1; in a row step, of the part.
    pub statement: usize,
}

/// The chain's schema in front of a migration, and what the migration does to it, as the publisher recorded them.
#[derive(Clone, Copy, Debug)]
pub struct Expected<'a> {
    /// In front.
    pub from: &'a Schema,
    /// What changes.
    pub change: &'a SchemaChange,
}

impl Expected<'_> {
    /// Whether the chain has this object, before or after.
    fn knows(&self, key: &str) -> bool {
        self.from.0.contains_key(key) || self.change.0.contains_key(key)
    }

    /// How what was found differs, object by object. Only what changed is looked at: the rest was right before.
    fn drift(&self, found: &Schema, changes: &Changes) -> Vec<String> {
        let mut drift = Vec::new();
        for (object, digest) in &self.change.0 {
            match (digest, found.0.get(object)) {
                (Some(_), None) => drift.push(format!("{object} is missing")),
                (Some(wanted), Some(got)) if wanted != got => drift.push(format!("{object} differs")),
                (None, Some(_)) => drift.push(format!("{object} is still there")),
                (Some(_), Some(_)) | (None, None) => {}
            }
        }
        for made in changes.made.iter().filter(|m| !self.change.0.contains_key(&m.key)) {
            match self.from.0.get(&made.key) {
                Some(before) if found.0.get(&made.key) != Some(before) => drift.push(format!("{} differs", made.key)),
                None if made.new => drift.push(format!("{} is not part of it", made.key)),
                Some(_) | None => {}
            }
        }
        let lost = changes.dropped.iter().filter(|(key, _)| self.from.0.contains_key(key) && !self.change.0.contains_key(key));
        drift.extend(lost.map(|(key, _)| format!("{key} is missing")));
        drift
    }
}

/// Runs `units` of `migration` in the open transaction and judges the result against `expected`. On failure the
/// transaction holds rubbish, or is gone: the caller rolls back.
pub fn perform(
    managed: &mut Managed,
    migration: &Migration,
    units: &[Unit],
    expected: Option<Expected<'_>>,
    before: &Before,
    watch: &mut dyn FnMut(AtStep),
) -> Result<Performed, ApplyError> {
    let timeout = migration.manifest.timeout.get();
    // What is read afterwards is only what the steps changed.
    managed.schema.read(&managed.connection).map_err(sqlite("reading the schema"))?;
    let goes_down = units.iter().any(|unit| matches!(&unit.work, Work::Sql(file) if migration.down.as_ref() == Some(file)));
    let mut legacy_alter_table = goes_down && migration.manifest.legacy_alter_table == LegacyAlterTable::Down;
    if legacy_alter_table {
        let on = managed.connection.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, true);
        on.map_err(sqlite("switching legacy_alter_table"))?;
    }

    let on = managed.guard.on(timeout, migration.manifest.foreign_keys == ForeignKeys::On);
    let ran = run(managed, migration, units, &mut legacy_alter_table, watch);
    let (stopped, touched) = (managed.guard.stopped(), managed.guard.touched());
    drop(on);
    restore(&managed.connection, legacy_alter_table)?;
    let mut performed = ran.map_err(|error| explain(error, stopped, timeout))?;
    performed.written.extend(touched.written.union(&touched.removed).cloned());

    // The foreign SQL has run; what is asked from here on is ours, within the same deadline.
    managed.guard.time(true);
    let judged = judge(managed, expected, before, &touched, false);
    let stopped = managed.guard.stopped();
    managed.guard.time(false);
    judged.map_err(|error| explain(error, stopped, timeout)).map(|()| performed)
}

/// Runs `units` under the guard that is on.
fn run(
    managed: &Managed,
    migration: &Migration,
    units: &[Unit],
    legacy_alter_table: &mut bool,
    watch: &mut dyn FnMut(AtStep),
) -> Result<Performed, ApplyError> {
    let mut performed = Performed::default();
    let steps = units.last().map_or(0, |unit| unit.step);
    for unit in units {
        let (file, reading) = match &unit.work {
            Work::Sql(file) => (file, Reading::Run),
            Work::Verify(file) => (file, Reading::Verify),
            Work::Backfill(_) | Work::Clear(_) | Work::Load(_) => {
                let mut step = unit.row_step(managed, migration)?.expect("these are row steps");
                run_rows(managed, &mut step, unit.step, &mut performed, &mut |part| watch(AtStep { step: unit.step, steps, statement: part }))?;
                continue;
            }
            Work::Rebuild(step) => {
                rebuild_at_once(managed, migration, unit, step, &mut performed, &mut |part| {
                    watch(AtStep { step: unit.step, steps, statement: part })
                })?;
                continue;
            }
            // In one transaction nobody waits for the table to be emptied first.
            Work::Discard(_) => continue,
        };
        let text = migration.file(file).expect("a verified migration has every file its steps name");
        let mut open = false;
        let ran = script::run(
            &managed.connection,
            &managed.guard,
            &format!("{}/{file}", migration.name),
            text,
            reading,
            |instruction| obey(instruction, &managed.connection, &mut open, legacy_alter_table),
            |statement| watch(AtStep { step: unit.step, steps, statement }),
        )?;
        performed.statements += ran.statements;
        performed.rows += ran.rows;
    }
    Ok(performed)
}

/// A table rebuilt in one transaction: nobody writes meanwhile, and what is replaced goes at once.
fn rebuild_at_once(
    managed: &Managed,
    migration: &Migration,
    unit: &Unit,
    step: &Rebuild,
    performed: &mut Performed,
    watch: &mut dyn FnMut(usize),
) -> Result<(), ApplyError> {
    let guard = managed.guard.clone();
    let rebuilding = guard.pause(|| {
        let rebuilding = Rebuilding::new(managed, step, unit.step, migration, unit.place(migration))?;
        rebuilding.begin(managed, unit.step, None).map(|()| rebuilding)
    })?;
    guard.lend(rebuilding.lent());
    let mut rows = RowStep::Rebuild(Box::new(rebuilding));
    run_rows(managed, &mut rows, unit.step, performed, watch)?;
    guard.lend(&[]);
    let RowStep::Rebuild(rebuilding) = rows else { unreachable!("it was made above") };
    let touched = guard.pause(|| {
        let touched = rebuilding.swap(managed)?;
        rebuild::take_away(managed, Some(unit.step)).map(|()| touched)
    })?;
    let table = BTreeSet::from([step.table.to_ascii_lowercase()]);
    guard.add(Touched { written: table.clone(), removed: table, ..touched });
    Ok(())
}

/// A row step from its beginning to its end, in one transaction.
fn run_rows(managed: &Managed, step: &mut RowStep, number: usize, performed: &mut Performed, watch: &mut dyn FnMut(usize)) -> Result<(), ApplyError> {
    let (mut position, mut failed, mut part) = (None::<String>, HashSet::new(), 0);
    loop {
        part += 1;
        watch(part);
        let chunk = step.chunk(managed, &Part { position: position.as_deref(), rows: ROWS_AT_ONCE, failed: &failed })?;
        performed.rows += chunk.changed;
        performed.skipped += chunk.skipped;
        failed.extend(chunk.failed.iter().map(|item| item.key.clone()));
        performed.failed.extend(chunk.failed.into_iter().map(|item| (number, item)));
        if chunk.end {
            return Ok(());
        }
        position = Some(chunk.position);
    }
}

/// Judges what the steps left behind. `ours_may_change`: the engine itself made or dropped tables of ours.
pub(super) fn judge(
    managed: &mut Managed,
    expected: Option<Expected<'_>>,
    before: &Before,
    touched: &Touched,
    ours_may_change: bool,
) -> Result<(), ApplyError> {
    if touched.temporary {
        drop_temporary(&managed.connection).map_err(sqlite("dropping temporary objects"))?;
    }
    let changes = match (touched.schema, touched.altered) {
        (false, _) => Ok(Changes::default()),
        (true, false) => managed.schema.read_created(&managed.connection),
        (true, true) => managed.schema.read(&managed.connection),
    }
    .map_err(sqlite("reading the schema"))?;
    if !changes.ours.is_empty() && !ours_may_change {
        return Err(ApplyError::ChangedOurs { objects: changes.ours });
    }
    // A body is authorised only when it fires, in the application, which has no authorizer. SQLite's identifiers have
    // no escapes, so looking for the prefix in the text is sound.
    if let Some(made) = changes.made.iter().find(|m| m.sql.to_ascii_lowercase().contains(RESERVED)) {
        return Err(ApplyError::NamesOurs { object: made.key.clone() });
    }
    if let Some(expected) = expected
        && keep_the_apps_own(managed, expected, &changes, touched)?
    {
        managed.schema.read(&managed.connection).map_err(sqlite("reading the schema"))?;
    }
    if !changes.made.is_empty() || !changes.dropped.is_empty() {
        let objects: Vec<String> =
            broken(managed).into_iter().filter(|(o, _)| !before.broken.contains(o)).map(|(o, m)| format!("{o} ({m})")).collect();
        if !objects.is_empty() {
            return Err(ApplyError::Broken { objects });
        }
    }

    // A rebuild in several transactions judges each row as it is copied.
    let children = managed.schema.children_of(&|t| touched.written.contains(t) || changes.foreign_keys.contains(t), &|t| touched.removed.contains(t));
    if !children.is_empty() && !ours_may_change {
        let (_, found) = Violations::read(&managed.connection, &managed.schema, Some(&children)).map_err(sqlite("checking foreign keys"))?;
        let new = before.violations.clone().unwrap_or_default().new_in(found);
        if !new.is_empty() {
            return Err(ApplyError::NewViolations { total: new.len(), rows: new.into_iter().take(super::error::NAMED + 1).map(|v| v.0).collect() });
        }
    }

    if let Some(expected) = expected {
        let drift = expected.drift(managed.schema.schema(), &changes);
        if !drift.is_empty() {
            return Err(ApplyError::WrongSchema { drift });
        }
    }
    Ok(())
}

/// A rebuild drops the indexes and triggers that the application put on a table itself, and no author of a chain knows
/// of them: they are made again. Returns whether there were any.
fn keep_the_apps_own(managed: &Managed, expected: Expected<'_>, changes: &Changes, touched: &Touched) -> Result<bool, ApplyError> {
    let mut any = false;
    for (key, sql) in &changes.dropped {
        let Some((kind @ ("index" | "trigger"), name)) = key.split_once(' ') else { continue };
        if expected.knows(key) || touched.dropped.contains(name) {
            continue;
        }
        match managed.connection.execute_batch(sql) {
            Ok(()) => any = true,
            // Its table is gone for good, and it with it.
            Err(error) if error.to_string().contains("no such table") => {}
            Err(error) => return Err(ApplyError::LostOwn { object: format!("{kind} {name}"), why: error.to_string() }),
        }
    }
    Ok(any)
}

/// Views and triggered tables that do not compile, with SQLite's message. What needs a function or collation that only
/// the application has cannot be judged here and passes.
pub fn broken(managed: &Managed) -> Vec<(String, String)> {
    let connection = &managed.connection;
    let (views, triggered) = managed.schema.views_and_triggered();
    let quote = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut found = Vec::new();
    let mut compile = |object: String, sql: &str| {
        if let Err(error) = connection.prepare(sql) {
            let message = error.to_string();
            let only_the_app_knows =
                message.contains("no such function") || message.contains("no such collation") || message.contains("unknown tokenizer");
            // A view with a trigger for one kind of change refuses the others.
            if !only_the_app_knows && !message.contains("cannot modify") {
                found.push((object, message));
            }
        }
    };
    for view in views {
        compile(format!("view {view}"), &format!("EXPLAIN SELECT * FROM main.{}", quote(view)));
    }
    for table in triggered {
        let name = quote(table);
        let object = format!("a trigger of {table}");
        compile(object.clone(), &format!("EXPLAIN INSERT INTO main.{name} DEFAULT VALUES"));
        compile(object.clone(), &format!("EXPLAIN DELETE FROM main.{name}"));
        if let Some(assignments) = assignments(connection, table) {
            compile(object, &format!("EXPLAIN UPDATE main.{name} SET {assignments}"));
        }
    }
    found
}

/// `"a"="a","b"="b"` over the columns that can be written, so that every UPDATE OF trigger is compiled.
fn assignments(connection: &Connection, table: &str) -> Option<String> {
    let mut statement = connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0").ok()?;
    let columns: Vec<String> = statement.query_map([table], |row| row.get::<_, String>(0)).ok()?.filter_map(Result::ok).collect();
    let quoted: Vec<_> = columns.iter().map(|c| format!("\"{0}\"=\"{0}\"", c.replace('"', "\"\""))).collect();
    (!quoted.is_empty()).then(|| quoted.join(","))
}

/// Grants what a script asks of the engine, or says why it cannot be had.
fn obey(instruction: Instruction, connection: &Connection, open: &mut bool, legacy_alter_table: &mut bool) -> Result<(), String> {
    match instruction {
        // A migration is one transaction anyway; a script's own BEGIN and COMMIT have to match, or a COMMIT was smuggled in.
        Instruction::Begin if *open => Err("it begins a transaction inside its own".to_owned()),
        Instruction::Begin => {
            *open = true;
            Ok(())
        }
        Instruction::Commit if !*open => {
            Err("it commits a transaction that it did not begin; a migration is committed by whimbrel, whole".to_owned())
        }
        Instruction::Commit => {
            *open = false;
            Ok(())
        }
        // Provided always: foreign keys do not act while it runs (they are off since before BEGIN), or they do where the
        // manifest says so, and the result is checked before COMMIT.
        Instruction::ForeignKeys(_) | Instruction::DeferForeignKeys(_) => Ok(()),
        Instruction::LegacyAlterTable(on) => {
            *legacy_alter_table = true;
            connection.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, on).map(|_| ()).map_err(|e| e.to_string())
        }
    }
}

fn restore(connection: &Connection, legacy_alter_table: bool) -> Result<(), ApplyError> {
    if legacy_alter_table {
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, false).map_err(sqlite("restoring legacy_alter_table"))?;
    }
    Ok(())
}

/// An interrupted statement's error, by who interrupted it.
pub fn explain(error: ApplyError, stopped: Option<Stopped>, timeout: Duration) -> ApplyError {
    match (error, stopped) {
        (ApplyError::Script(ScriptError::Sqlite { .. }) | ApplyError::Sqlite { .. }, Some(Stopped::Deadline)) => ApplyError::Timeout { timeout },
        (ApplyError::Script(ScriptError::Sqlite { .. }) | ApplyError::Sqlite { .. }, Some(Stopped::Cancelled)) => ApplyError::Cancelled,
        (error, _) => error,
    }
}

/// Drops what a script left in the temporary schema: the next migration on this connection must not see it.
fn drop_temporary(connection: &Connection) -> rusqlite::Result<()> {
    let mut statement =
        connection.prepare("SELECT type, name FROM temp.sqlite_schema WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'")?;
    let objects: Vec<(String, String)> = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect::<Result<_, _>>()?;
    drop(statement);
    for (kind, name) in objects {
        connection.execute_batch(&format!("DROP {kind} temp.\"{}\"", name.replace('"', "\"\"")))?;
    }
    Ok(())
}

/// Switches foreign keys for the transaction that is about to begin: inside one the pragma is a silent no-op.
pub fn set_foreign_keys(connection: &Connection, manifest: &Manifest) -> Result<(), ApplyError> {
    let on = manifest.foreign_keys == ForeignKeys::On;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, on).map(|_| ()).map_err(sqlite("switching foreign keys"))
}
