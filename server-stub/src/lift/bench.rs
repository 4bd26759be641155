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
    config::DbConfig,
    fallible_iterator::FallibleIterator,
    hooks::{AuthAction, AuthContext, Authorization},
    limits::Limit,
    params_from_iter,
    types::{ToSqlOutput, ValueRef},
};
use whimbrel_shared::{change::MAX_ROW_BYTES, value::Value};

use super::plan::{Fill, Hop};

/// Most databases that are kept open: some 60 KB each. A chain with more backfills opens them again.
const MOST_OPEN: usize = 64;
/// Steps of SQLite's machine between two looks at what is left.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;
/// Most steps for one row and backfill: some 20 ms. Counted and not timed, so that a row fails everywhere or nowhere.
const MOST_STEPS: i64 = 2_000_000;
/// Longest pattern of LIKE and GLOB, which cost the product of both lengths in one step.
const LONGEST_PATTERN: i32 = 1_000;
/// Functions that reach outside; none is built in, and none is to come in unnoticed.
const OUTSIDE: [&str; 5] = ["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"];

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
        guard(&mut connection).map_err(text)?;
        let unsteady = unsteady(&connection).map_err(text)?;
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
            match (judge(&context.action, &own, steady.as_ref(), saw.is_some()), saw.as_mut(), &context.action) {
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

/// Why an action is refused; none where it may be. `foreign`: whether it is the publisher's expression that is compiled, and
/// not our own statements around it.
fn judge(action: &AuthAction<'_>, own: &str, steady: &dyn Fn(&str) -> bool, foreign: bool) -> Option<String> {
    match *action {
        AuthAction::Function { function_name } if steady(function_name) => None,
        AuthAction::Function { function_name } => Some(format!("it calls {function_name}(), which does not always give the same")),
        AuthAction::Read { table_name, .. } | AuthAction::Update { table_name, .. } if table_name.eq_ignore_ascii_case(own) => None,
        AuthAction::Read { table_name, .. } => Some(format!("it reads {table_name}, and only its own row is there")),
        AuthAction::Select if foreign => Some("it has a SELECT of its own, and only its row is there".to_owned()),
        AuthAction::Select => None,
        AuthAction::Insert { table_name } | AuthAction::Delete { table_name } if !foreign && table_name.eq_ignore_ascii_case(own) => None,
        _ => Some("it is more than an expression over its row".to_owned()),
    }
}

/// Nothing but this one table, no row larger than one that is exchanged, no statement larger than a step.
fn guard(connection: &mut Connection) -> rusqlite::Result<()> {
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    // A row is checked where it lands; here it may be one of which some columns are not said.
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, i32::try_from(MAX_ROW_BYTES + MAX_ROW_BYTES / 2).unwrap_or(i32::MAX)),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 1),
        (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    ] {
        connection.set_limit(limit, value)?;
    }
    Ok(())
}

/// Functions that SQLite does not call deterministic, those of the clock, and those that reach outside.
fn unsteady(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    const DETERMINISTIC: i64 = 0x800; // SQLITE_DETERMINISTIC
    const MORE: [&str; 7] = [
        "current_timestamp",
        "current_time",
        "current_date",
        "sqlite_version",
        "sqlite_source_id",
        "sqlite_compileoption_used",
        "sqlite_compileoption_get",
    ];
    let sql = "SELECT lower(name) FROM pragma_function_list WHERE type = 's' GROUP BY lower(name) HAVING max(flags & ?1) = 0";
    let mut names: BTreeSet<String> = connection.prepare(sql)?.query_map([DETERMINISTIC], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    names.extend(MORE.iter().chain(&OUTSIDE).map(|name| (*name).to_owned()));
    Ok(names)
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
pub(super) mod tests {
    use whimbrel_shared::lift::LiftColumn;

    use super::*;

    pub(in crate::lift) fn fill(create: &str, set: &str, filter: &str, columns: &[(&str, u32, u32)]) -> Fill {
        let column = |(name, before, after): &(&str, u32, u32)| LiftColumn { name: (*name).to_owned(), before: *before, after: *after };
        Fill {
            table: create.split('(').next().unwrap().to_owned(),
            create: format!("CREATE TABLE {create}"),
            set: set.to_owned(),
            filter: filter.to_owned(),
            columns: columns.iter().map(column).collect(),
        }
    }

    pub(in crate::lift) fn hop(version: u32, fills: Vec<Fill>) -> Hop {
        Hop { table: 1, version, key: vec![1], fills }
    }

    /// What the columns are, by id: `3=x` computed, `3~x` the default.
    fn run(hop: &Hop, row: &[(u32, Value)]) -> Result<String, String> {
        let held = |id: u32| row.iter().find(|(column, _)| *column == id).map(|(_, value)| value.clone());
        let ran = Bench::default().run(hop, &[Value::Integer(7)], &held);
        if let Some((_, why)) = ran.failed {
            return Err(why);
        }
        let one = |(id, f): (&u32, &Filled)| format!("{id}{}{:?}<{:?}", if f.computed { '=' } else { '~' }, f.value, f.sources);
        Ok(ran.filled.iter().map(one).collect::<Vec<_>>().join(" ").replace('"', ""))
    }

    const NOTE: [(&str, u32, u32); 4] = [("id", 1, 1), ("title", 2, 2), ("slug", 0, 3), ("n", 0, 4)];

    fn note(set: &str, filter: &str) -> Hop {
        hop(2, vec![fill("note(id INTEGER PRIMARY KEY, title TEXT NOT NULL, slug TEXT DEFAULT '-', n INTEGER)", set, filter, &NOTE)])
    }

    #[test]
    fn a_row_gets_what_its_table_would_have_given_it() {
        let titled = [(2, Value::text("A b"))];
        let check = |set: &str, filter: &str, expected: &str| assert_eq!(run(&note(set, filter), &titled).as_deref(), Ok(expected), "{set}");
        check("slug = replace(lower(title), ' ', '-')", "slug = '-'", "3=a-b<{2}");
        // The column's type, the key, the default, what the condition reads.
        check("n = '12', slug = id", "1", "3=7<{} 4=12<{}");
        check("n = 1", "title = 'other'", "4~NULL<{2}");
        check("slug = 'x'", "title = 'other'", "3~-<{2}");
        // Each column has its own sources.
        check("(slug, n) = (title, id)", "1", "3=A b<{2} 4=7<{}");
        check("n = length(title), slug = 'c'", "1", "3=c<{} 4=3<{2}");
        // A column that is not said and must have a value has something, as long as nobody asks for it.
        assert_eq!(run(&note("n = id", "1"), &[]).as_deref(), Ok("4=7<{}"));
    }

    #[test]
    fn one_backfill_goes_on_from_another_under_whatever_names() {
        let first = fill(
            "p(id, name, family, tmp)",
            "family = name, tmp = length(name)",
            "1",
            &[("id", 1, 1), ("name", 2, 0), ("family", 0, 3), ("tmp", 0, 0)],
        );
        let second = fill("q(id, surname, tmp)", "surname = surname || tmp", "tmp > 2", &[("id", 1, 1), ("surname", 0, 3), ("tmp", 0, 0)]);
        let both = hop(2, vec![first, second]);
        assert_eq!(run(&both, &[(2, Value::text("King"))]).as_deref(), Ok("3=King4<{2}"));
        assert_eq!(run(&both, &[(2, Value::text("Ng"))]).as_deref(), Ok("3=Ng<{2}"));
        // A column that is filled anew is the old one where the condition does not hold.
        let anew = hop(2, vec![fill("t(id, zip)", "zip = upper(zip)", "zip LIKE 'a%'", &[("id", 1, 1), ("zip", 2, 5)])]);
        assert_eq!(run(&anew, &[(2, Value::text("a1"))]).as_deref(), Ok("5=A1<{2}"));
        assert_eq!(run(&anew, &[(2, Value::text("b1"))]).as_deref(), Ok("5=b1<{2}"));
    }

    #[test]
    fn what_is_more_than_an_expression_over_its_row_is_refused() {
        let check = |set: &str, filter: &str, word: &str| {
            let why = run(&note(set, filter), &[(2, Value::text("a"))]).unwrap_err();
            assert!(why.contains(word), "{set}: {why}");
        };
        check("slug = hex(randomblob(4))", "1", "randomblob()");
        check("slug = current_timestamp", "1", "current_timestamp()");
        check("slug = load_extension('x')", "1", "load_extension");
        check("slug = (SELECT max(title) FROM note)", "1", "SELECT");
        check("slug = title FROM sqlite_schema", "1", "SELECT");
        check("slug = 'x' WHERE 1; DELETE FROM note; --", "1", "more than");
        check("slug = 'x'", "1); DROP TABLE note; SELECT (1", "more than");
        check("slug = 'x' RETURNING 1; --", "1", "more than");
        check("nowhere = 1", "1", "no such column");
        let elsewhere = Fill { create: "CREATE TABLE note AS SELECT 1; ATTACH 'x' AS y".to_owned(), ..note("slug = 1", "1").fills.remove(0) };
        assert!(run(&hop(2, vec![elsewhere]), &[]).is_err());
        let trigger =
            Fill { create: "CREATE TRIGGER note AFTER INSERT ON x BEGIN SELECT 1; END".to_owned(), ..note("slug = 1", "1").fills.remove(0) };
        assert!(run(&hop(2, vec![trigger]), &[]).is_err());
    }

    #[test]
    fn a_row_for_which_it_fails_or_costs_too_much_is_left_and_the_next_one_goes_on() {
        let mut bench = Bench::default();
        // Each on the same bench, as a version of its own.
        let of = |version: u32, set: &str| Hop { version, ..note(set, "1") };
        let mut check = |hop: &Hop, title: Value, expected: Result<&str, &str>| {
            let ran = bench.run(hop, &[Value::Integer(7)], &|id| (id == 2).then(|| title.clone()));
            match (expected, ran.failed) {
                (Ok(value), None) => assert_eq!(ran.filled[&4].value, Value::text(value)),
                (Err(word), Some((columns, why))) => {
                    assert!(why.contains(word) && !why.contains("secret"), "{why}");
                    assert_eq!((columns, ran.filled.len()), (BTreeSet::from([4]), 0));
                }
                (_, failed) => panic!("{failed:?}"),
            }
        };
        let json = of(2, "n = json_extract(title, '$.a')");
        check(&json, Value::text("{\"a\":\"b\"}"), Ok("b"));
        check(&json, Value::text("secret"), Err("malformed JSON"));
        check(&json, Value::text("{\"a\":\"c\"}"), Ok("c"));
        check(&of(3, "n = 'x'"), Value::Null, Err("NOT NULL"));
        check(&of(4, "n = zeroblob(100000000)"), Value::text("a"), Err("too big"));
        check(&of(5, "n = (title LIKE title)"), Value::Text(vec![b'%'; 5_000]), Err("pattern too complex"));
        check(&json, Value::text("{\"a\":\"d\"}"), Ok("d"));
        // Deep, and within what a row may cost.
        let long = "json(title) || ".repeat(150);
        check(&of(6, &format!("n = {long} 'x'")), Value::text("[1]"), Ok(&format!("{}x", "[1]".repeat(150))));
    }
}
