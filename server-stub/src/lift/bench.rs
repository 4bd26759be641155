//! Where backfills are repeated: for each a database in memory with its one table, into which one row is put at a time. The
//! expressions are a publisher's and were looked at when they were published; here they are not trusted all the same. SQLite
//! asks an authorizer for all that they touch (<https://sqlite.org/c3ref/set_authorizer.html>), and counts what they cost.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use rusqlite::{
    Batch, Connection, OpenFlags,
    fallible_iterator::FallibleIterator,
    hooks::{AuthAction, AuthContext, Authorization},
    params_from_iter,
    types::{ToSqlOutput, ValueRef},
};
use whimbrel_shared::value::Value;

use super::{
    guard,
    plan::{Fill, Hop},
};

/// Most databases that are kept open. A chain with more backfills opens them again.
const MOST_OPEN: usize = 64;
/// Steps of SQLite's machine between two looks at what is left.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Most steps for one row and backfill; a few expressions take some dozens. Counted and not timed, so that a row fails always
/// or never.
const MOST_STEPS: i64 = 2_000_000;

/// The databases of one reader or writer.
#[derive(Default)]
pub(crate) struct Bench {
    open: HashMap<(u32, u32, usize), Result<Opened, String>>,
}

/// What became of a row at one version.
#[derive(Debug, Default)]
pub(super) struct Ran {
    /// The columns that the version fills, by id.
    pub(super) filled: BTreeMap<u32, Filled>,
    /// Columns that could not be computed, and what SQLite said. It never names a value.
    pub(super) failed: Option<(BTreeSet<u32>, String)>,
}

/// A column that is filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Filled {
    pub(super) value: Value,
    /// Whether the row matched `where`, or the column goes on from an older one; else the value is the column's default.
    pub(super) computed: bool,
    /// The columns of the version before from which it is computed, without the key.
    pub(super) sources: BTreeSet<u32>,
}

impl Bench {
    /// Takes a row with that key through one version. `held`: its value in a column of the version before, where it has one.
    pub(super) fn run(&mut self, hop: &Hop, key: &[Value], held: &dyn Fn(u32) -> Option<Value>) -> Ran {
        let mut ran = Ran::default();
        // What earlier backfills of the version left, by who the column is.
        let mut so_far: HashMap<Who<'_>, (Value, BTreeSet<u32>)> = HashMap::new();
        for (number, fill) in hop.fills.iter().enumerate() {
            let opened = match self.open(hop, number, fill) {
                Ok(opened) => opened,
                Err(why) => {
                    let (columns, _) = ran.failed.take().unwrap_or_default();
                    ran.failed = Some((columns, why.clone()));
                    continue;
                }
            };
            let value = |at: usize| {
                let column = &fill.columns[at];
                let known = || match hop.key.iter().position(|id| *id == column.before) {
                    Some(place) => key.get(place).cloned(),
                    None if column.before == 0 => None,
                    None => held(column.before),
                };
                so_far.get(&who(fill, at)).map(|(value, _)| value.clone()).or_else(known)
            };
            let sources = |at: usize| match so_far.get(&who(fill, at)) {
                Some((_, sources)) => sources.clone(),
                None => Some(fill.columns[at].before).filter(|id| *id != 0 && !hop.key.contains(id)).into_iter().collect(),
            };
            let inputs: Vec<Option<Value>> = (0..fill.columns.len()).map(value).collect();
            let row = match opened.run(&inputs) {
                Ok(row) => row,
                Err(error) => {
                    let (mut columns, said) = ran.failed.take().unwrap_or_default();
                    let targets = opened.targets.iter().map(|(at, _)| fill.columns[*at].after);
                    columns.extend(targets.filter(|id| *id != 0 && !ran.filled.contains_key(id)));
                    ran.failed = Some((columns, if said.is_empty() { error } else { said }));
                    continue;
                }
            };
            let mut left = Vec::new();
            for (at, reads) in &opened.targets {
                let column = &fill.columns[*at];
                let goes_on = column.before != 0 || so_far.contains_key(&who(fill, *at));
                let mut from: BTreeSet<u32> = reads.iter().flat_map(|read| sources(*read)).collect();
                if goes_on {
                    from.extend(sources(*at));
                }
                let value = row.values[*at].clone();
                if row.matched || goes_on {
                    left.push((who(fill, *at), (value.clone(), from.clone())));
                }
                if column.after != 0 && !hop.key.contains(&column.after) {
                    let before = ran.filled.get(&column.after).is_some_and(|f| f.computed);
                    ran.filled.insert(column.after, Filled { value, computed: row.matched || column.before != 0 || before, sources: from });
                }
            }
            so_far.extend(left);
        }
        ran
    }

    /// Whether a version computes anything from one of these columns, as far as is known.
    pub(super) fn reads(&mut self, hop: &Hop, changed: &BTreeSet<u32>) -> bool {
        hop.fills.iter().enumerate().any(|(number, fill)| match self.open(hop, number, fill) {
            Ok(opened) => {
                let (targets, reads) = (opened.targets.iter().map(|(at, _)| at), opened.targets.iter().flat_map(|(_, reads)| reads));
                targets.chain(reads).any(|at| changed.contains(&fill.columns[*at].before))
            }
            Err(_) => true,
        })
    }

    fn open(&mut self, hop: &Hop, number: usize, fill: &Fill) -> Result<&Opened, &String> {
        let place = (hop.table, hop.version, number);
        if self.open.len() >= MOST_OPEN && !self.open.contains_key(&place) {
            self.open.clear();
        }
        self.open.entry(place).or_insert_with(|| Opened::new(fill)).as_ref()
    }
}

/// Who a column is within one version, whatever it is called at a step.
#[derive(PartialEq, Eq, Hash)]
enum Who<'a> {
    After(u32),
    Before(u32),
    Named(&'a str),
}

fn who(fill: &Fill, at: usize) -> Who<'_> {
    let column = &fill.columns[at];
    match (column.after, column.before) {
        (0, 0) => Who::Named(&column.name),
        (0, before) => Who::Before(before),
        (after, _) => Who::After(after),
    }
}

/// A row after a backfill.
struct After {
    /// Whether it matched `where`.
    matched: bool,
    /// Its values, one for each column of the fill.
    values: Vec<Value>,
}

/// One backfill, compiled on its table.
struct Opened {
    connection: Connection,
    insert: String,
    update: String,
    select: String,
    delete: String,
    /// What a column gets that has no value: its default, or where it must have one something of its type.
    absent: Vec<Value>,
    /// The columns that are set, each with those that it and the condition are computed from, by their places.
    targets: Vec<(usize, BTreeSet<usize>)>,
    left: Arc<AtomicI64>,
}

/// What a compiler asked for, in its order.
#[derive(Default)]
struct Saw {
    reads: Vec<String>,
    targets: Vec<(String, Vec<String>)>,
    refused: Option<String>,
}

impl Opened {
    fn new(fill: &Fill) -> Result<Self, String> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_in_memory_with_flags(flags).map_err(text)?;
        Self::on(connection, fill)
    }

    fn on(mut connection: Connection, fill: &Fill) -> Result<Self, String> {
        guard::restrict(&mut connection).map_err(text)?;
        let unsteady = guard::unsteady(&connection).map_err(text)?;
        let steady = move |name: &str| !unsteady.contains(&name.to_ascii_lowercase());
        let steady: Arc<dyn Fn(&str) -> bool + Send + Sync> = Arc::new(steady);

        let functions = steady.clone();
        let making = move |context: AuthContext<'_>| match context.action {
            AuthAction::CreateTable { .. } | AuthAction::CreateIndex { .. } | AuthAction::Read { .. } | AuthAction::Reindex { .. } => {
                Authorization::Allow
            }
            AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } if table_name.starts_with("sqlite_") => Authorization::Allow,
            AuthAction::Function { function_name } if functions(function_name) => Authorization::Allow,
            _ => Authorization::Deny,
        };
        connection.authorizer(Some(making)).map_err(text)?;
        one(&connection, &fill.create)?.execute([]).map_err(text)?;
        connection.authorizer(None::<fn(AuthContext<'_>) -> Authorization>).map_err(text)?;
        let declared = declared(&connection, &fill.table)?;

        let own = fill.table.to_ascii_lowercase();
        let saw: Arc<Mutex<Option<Saw>>> = Arc::default();
        let look = Arc::clone(&saw);
        let using = move |context: AuthContext<'_>| {
            let mut saw = look.lock().unwrap_or_else(PoisonError::into_inner);
            match (guard::judge(&context.action, &own, steady.as_ref(), saw.is_some()), saw.as_mut(), &context.action) {
                (None, Some(saw), AuthAction::Read { column_name, .. }) => saw.reads.push((*column_name).to_owned()),
                (None, Some(saw), AuthAction::Update { column_name, .. }) => {
                    let reads = std::mem::take(&mut saw.reads);
                    saw.targets.push(((*column_name).to_owned(), reads));
                }
                (None, _, _) => {}
                (Some(why), saw, _) => {
                    saw.into_iter().for_each(|saw| _ = saw.refused.get_or_insert(why.clone()));
                    return Authorization::Deny;
                }
            }
            Authorization::Allow
        };
        connection.authorizer(Some(using)).map_err(text)?;
        let left = Arc::new(AtomicI64::new(MOST_STEPS));
        let counts = Arc::clone(&left);
        let count = move || counts.fetch_sub(STEPS_BETWEEN_LOOKS.into(), Ordering::Relaxed) < 0;
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(count)).map_err(text)?;

        let table = quote(&fill.table);
        let update = format!("UPDATE {table} SET {}\n WHERE ({}\n)", fill.set, fill.filter);
        let taken = || saw.lock().unwrap_or_else(PoisonError::into_inner);
        *taken() = Some(Saw::default());
        let compiled = one(&connection, &update).map(drop);
        let seen = taken().take().unwrap_or_default();
        if let Some(why) = seen.refused {
            return Err(why);
        }
        compiled?;
        let names: Vec<String> = fill.columns.iter().map(|c| quote(&c.name)).collect();
        let places: Vec<String> = (1..=names.len()).map(|n| format!("?{n}")).collect();
        let place = |name: &String| fill.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name));
        let of_where = seen.reads;
        let targets = seen.targets.iter().filter_map(|(name, reads)| {
            let target = place(name)?;
            // The condition as a rule asks whether the target has its value yet, and that is not where the value comes from.
            Some((target, reads.iter().chain(&of_where).filter_map(place).filter(|at| *at != target).collect()))
        });
        Ok(Self {
            insert: format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), places.join(", ")),
            update,
            select: format!("SELECT {} FROM {table}", names.join(", ")),
            delete: format!("DELETE FROM {table}"),
            absent: absent(&connection, fill, &declared)?,
            targets: targets.collect(),
            left,
            connection,
        })
    }

    /// The row with these values after the backfill. What SQLite said where it failed.
    fn run(&self, inputs: &[Option<Value>]) -> Result<After, String> {
        self.left.store(MOST_STEPS, Ordering::Relaxed);
        let ran = self.one_row(inputs);
        self.left.store(MOST_STEPS, Ordering::Relaxed);
        let emptied = self.connection.prepare_cached(&self.delete).and_then(|mut s| s.execute([]));
        match (ran, emptied) {
            (Ok(after), Ok(_)) => Ok(after),
            (Err(error), _) | (_, Err(error)) => Err(match error.sqlite_error_code() {
                Some(rusqlite::ErrorCode::OperationInterrupted) => format!("it takes more than {MOST_STEPS} steps"),
                _ => text(error),
            }),
        }
    }

    fn one_row(&self, inputs: &[Option<Value>]) -> rusqlite::Result<After> {
        let row = inputs.iter().zip(&self.absent).map(|(said, absent)| sql(said.as_ref().unwrap_or(absent)));
        self.connection.prepare_cached(&self.insert)?.execute(params_from_iter(row))?;
        let matched = self.connection.prepare_cached(&self.update)?.execute([])? > 0;
        let values = self
            .connection
            .prepare_cached(&self.select)?
            .query_row([], |row| (0..inputs.len()).map(|at| Ok(value(row.get_ref(at)?))).collect::<rusqlite::Result<Vec<_>>>())?;
        Ok(After { matched, values })
    }
}

/// The one statement of a text.
fn one<'c>(connection: &'c Connection, sql: &'c str) -> Result<rusqlite::Statement<'c>, String> {
    let mut batch = Batch::new(connection, sql);
    let first = batch.next().map_err(text)?.ok_or_else(|| "there is no statement".to_owned())?;
    match batch.next() {
        Ok(None) => Ok(first),
        Ok(Some(_)) | Err(_) => Err("it is more than one statement".to_owned()),
    }
}

/// What is declared of each column: its type, whether it must have a value, its default.
type Declared = BTreeMap<String, (String, bool, Option<String>)>;

fn declared(connection: &Connection, table: &str) -> Result<Declared, String> {
    let mut statement = connection.prepare("SELECT lower(name), type, \"notnull\", dflt_value FROM pragma_table_xinfo(?1)").map_err(text)?;
    let rows = statement.query_map([table], |row| Ok((row.get(0)?, (row.get(1)?, row.get(2)?, row.get(3)?)))).map_err(text)?;
    rows.collect::<rusqlite::Result<_>>().map_err(text)
}

fn absent(connection: &Connection, fill: &Fill, declared: &Declared) -> Result<Vec<Value>, String> {
    let one = |name: &String| {
        let (kind, needed, default) = declared.get(&name.to_ascii_lowercase()).ok_or_else(|| format!("its table has no column {name}"))?;
        let default = default.as_ref().and_then(|text| {
            let sql = format!("SELECT ({text}\n)");
            connection.query_row(&sql, [], |row| Ok(value(row.get_ref(0)?))).ok()
        });
        Ok(match default.unwrap_or(Value::Null) {
            Value::Null if *needed => filler(kind),
            value => value,
        })
    };
    fill.columns.iter().map(|c| one(&c.name)).collect()
}

/// Something for a column that may not be NULL, is not said, and so is not asked for.
fn filler(kind: &str) -> Value {
    let kind = kind.to_ascii_uppercase();
    let has = |words: &[&str]| words.iter().any(|word| kind.contains(word));
    match () {
        () if has(&["INT"]) => Value::Integer(0),
        () if has(&["CHAR", "CLOB", "TEXT"]) => Value::text(""),
        () if has(&["BLOB"]) => Value::Blob(Vec::new()),
        () if has(&["REAL", "FLOA", "DOUB"]) => Value::real(0.0),
        () => Value::Integer(0),
    }
}

fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn text(error: rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(said)) => said,
        rusqlite::Error::SqlInputError { msg, .. } => msg,
        other => other.to_string(),
    }
}

fn sql(value: &Value) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(match value {
        Value::Null => ValueRef::Null,
        Value::Integer(i) => ValueRef::Integer(*i),
        Value::Real(bits) => ValueRef::Real(f64::from_bits(*bits)),
        Value::Text(text) => ValueRef::Text(text),
        Value::Blob(blob) => ValueRef::Blob(blob),
    })
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(i) => Value::Integer(i),
        ValueRef::Real(real) => Value::real(real),
        ValueRef::Text(text) => Value::Text(text.to_vec()),
        ValueRef::Blob(blob) => Value::Blob(blob.to_vec()),
    }
}

#[cfg(test)]
pub(super) mod tests;
