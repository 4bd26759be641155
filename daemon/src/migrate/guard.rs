//! What foreign SQL may do: an authorizer, a progress handler and limits on the connection that runs it (DESIGN 8.7).
//!
//! Installed when the connection is opened and switched on around the steps. SQLite asks for every statement while it
//! compiles it (<https://sqlite.org/c3ref/set_authorizer.html>), so nothing depends on our reading of the text.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rusqlite::{
    Connection,
    config::DbConfig,
    hooks::{AuthAction, AuthContext, Authorization, TransactionOperation},
    limits::Limit,
};

use super::{halt::Halt, schema::is_ours};

/// Prefix of our own tables, in lower case.
pub const RESERVED: &str = "_whimbrel_";

/// Virtual-machine steps between two looks at the deadline: about 10 µs of work.
const STEPS_BETWEEN_LOOKS: i32 = 1_000;

/// Virtual tables that a migration may create.
const MODULES: [&str; 4] = ["fts3", "fts4", "fts5", "rtree"];

/// Pragmas that read, or write what a transaction covers. Everything else is refused by name.
const READING_PRAGMAS: [&str; 22] = [
    "application_id",
    "collation_list",
    "compile_options",
    "data_version",
    "database_list",
    "encoding",
    "foreign_key_check",
    "foreign_key_list",
    "freelist_count",
    "function_list",
    "index_info",
    "index_list",
    "index_xinfo",
    "integrity_check",
    "page_count",
    "page_size",
    "quick_check",
    "schema_version",
    "table_info",
    "table_list",
    "table_xinfo",
    "user_version",
];
const WRITING_PRAGMAS: [&str; 3] = ["application_id", "user_version", "optimize"];

/// Pragmas that do nothing, or fail, inside a transaction (measured; reference 2.5): worth a sentence of their own.
const NO_EFFECT_PRAGMAS: [&str; 8] =
    ["journal_mode", "page_size", "auto_vacuum", "encoding", "synchronous", "wal_checkpoint", "locking_mode", "temp_store"];

const FUNCTIONS: [&str; 6] = ["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit", "sqlite_compileoption_get"];

/// What a script asks of the engine. The engine provides it its own way, so the statement itself is never run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instruction {
    /// `BEGIN`: all of a migration is one transaction anyway.
    Begin,
    /// `COMMIT` or `END`.
    Commit,
    /// `PRAGMA foreign_keys = …`.
    ForeignKeys(bool),
    /// `PRAGMA defer_foreign_keys = …`.
    DeferForeignKeys(bool),
    /// `PRAGMA legacy_alter_table = …`.
    LegacyAlterTable(bool),
}

/// Why the authorizer said no.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is no statement to run, but a wish the engine grants.
    Instruction(Instruction),
    /// It is refused; the sentence says what and why.
    Refused(String),
}

/// Why the progress handler stopped a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stopped {
    /// The migration's `timeout` passed.
    Deadline,
    /// A person or the end of the daemon asked for it.
    Cancelled,
}

/// What the statements since [`Guard::on`] touched.
#[derive(Clone, Debug, Default)]
pub struct Touched {
    /// Tables into which rows may have come, or in which they may have changed; lower case.
    pub written: BTreeSet<String>,
    /// Tables from which rows may have gone, or in which they may have changed, or that were dropped; lower case.
    pub removed: BTreeSet<String>,
    /// Tables that were dropped, lower case.
    pub dropped_tables: BTreeSet<String>,
    /// Indexes and triggers that were dropped by name, lower case.
    pub dropped: BTreeSet<String>,
    /// Whether any of them changes the schema.
    pub schema: bool,
    /// Whether any of them changes or drops an object that was there.
    pub altered: bool,
    /// Whether any of them makes a temporary object.
    pub temporary: bool,
}

#[derive(Debug, Default)]
struct State {
    /// Tables of ours that the engine's own statement around foreign expressions may touch.
    lent: Vec<String>,
    denied: Option<Denied>,
    /// What was refused, where it has a name.
    culprit: Option<String>,
    touched: Touched,
    /// Dropping a referenced table would fire its cascades.
    cascades: bool,
    deadline: Option<Instant>,
    stopped: Option<Stopped>,
}

/// The guard of one connection.
#[derive(Clone, Debug)]
pub struct Guard {
    on: Arc<AtomicBool>,
    /// Whether deadline and halt are looked at: longer than the authorizer is on.
    timed: Arc<AtomicBool>,
    halt: Halt,
    state: Arc<Mutex<State>>,
}

impl Guard {
    /// Installs it, switched off. `halt` stops a running statement within a thousand steps.
    pub fn install(connection: &mut Connection, halt: Halt) -> rusqlite::Result<Self> {
        let guard = Self { on: Arc::default(), timed: Arc::default(), halt, state: Arc::default() };

        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
        // A chain of migrations as a whole is larger than what security.html suggests for one query.
        for (limit, value) in [
            (Limit::SQLITE_LIMIT_SQL_LENGTH, 4_000_000),
            (Limit::SQLITE_LIMIT_LENGTH, 256_000_000),
            (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
            // Below what 4 MB of VALUES need, SQLite answers "out of memory".
            (Limit::SQLITE_LIMIT_VDBE_OP, 25_000_000),
            (Limit::SQLITE_LIMIT_ATTACHED, 0),
            (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 32),
        ] {
            connection.set_limit(limit, value)?;
        }

        let judge = guard.clone();
        connection.authorizer(Some(move |context: AuthContext<'_>| judge.authorize(&context)))?;
        let watch = guard.clone();
        connection.progress_handler(STEPS_BETWEEN_LOOKS, Some(move || watch.must_stop()))?;
        Ok(guard)
    }

    /// Switches it on for one migration. `cascades`: foreign keys act, so dropping a table is refused.
    pub fn on(&self, timeout: Duration, cascades: bool) -> GuardOn<'_> {
        *self.lock() = State { cascades, deadline: Instant::now().checked_add(timeout), ..State::default() };
        self.on.store(true, Ordering::Relaxed);
        self.timed.store(true, Ordering::Relaxed);
        GuardOn(self)
    }

    /// Lets the statements from here on touch these tables of ours: the engine wrote them around foreign expressions.
    pub fn lend(&self, names: &[String]) {
        self.lock().lent = names.to_vec();
    }

    /// Runs what is the engine's own, in the middle of foreign SQL, without the authorizer.
    pub fn pause<T>(&self, own: impl FnOnce() -> T) -> T {
        let on = self.on.swap(false, Ordering::Relaxed);
        let result = own();
        self.on.store(on, Ordering::Relaxed);
        result
    }

    /// Adds what the engine's own statements touched in the name of the migration.
    pub fn add(&self, more: Touched) {
        let touched = &mut self.lock().touched;
        touched.written.extend(more.written);
        touched.removed.extend(more.removed);
        touched.dropped_tables.extend(more.dropped_tables);
        touched.dropped.extend(more.dropped);
        touched.schema |= more.schema;
        touched.altered |= more.altered;
        touched.temporary |= more.temporary;
    }

    /// Whether deadline and halt still stop what runs while the authorizer is off.
    pub fn time(&self, on: bool) {
        self.timed.store(on, Ordering::Relaxed);
    }

    /// Why the last statement was refused. Asking forgets it.
    pub fn take_denied(&self) -> Option<Denied> {
        self.lock().denied.take()
    }

    /// The name that the last refusal is about, where it is about one: a table of ours, a module, a function.
    pub fn culprit(&self) -> Option<String> {
        self.lock().culprit.clone()
    }

    /// Why a statement was interrupted, if the guard did it.
    pub fn stopped(&self) -> Option<Stopped> {
        self.lock().stopped
    }

    /// What was touched since it was switched on.
    pub fn touched(&self) -> Touched {
        self.lock().touched.clone()
    }

    /// How work on this connection is stopped.
    pub fn halt(&self) -> &Halt {
        &self.halt
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn must_stop(&self) -> bool {
        crate::ambient::pulse();
        if !self.timed.load(Ordering::Relaxed) {
            return false;
        }
        let mut state = self.lock();
        state.stopped = if self.halt.abort() {
            Some(Stopped::Cancelled)
        } else if state.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            Some(Stopped::Deadline)
        } else {
            None
        };
        state.stopped.is_some()
    }

    fn authorize(&self, context: &AuthContext<'_>) -> Authorization {
        if !self.on.load(Ordering::Relaxed) {
            return Authorization::Allow;
        }
        // A trigger of ours on the application's table fires for its rows; no foreign statement can make one.
        if context.accessor.is_some_and(is_ours) {
            return Authorization::Allow;
        }
        let mut state = self.lock();
        if is_lent(&context.action, &state.lent) {
            return Authorization::Allow;
        }
        match judge(&context.action, state.cascades) {
            Ok(touch) => {
                touch.note(&mut state.touched);
                Authorization::Allow
            }
            Err(denied) => {
                state.denied = Some(denied);
                state.culprit = culprit(&context.action).map(str::to_owned);
                Authorization::Deny
            }
        }
    }
}

/// Switches the guard off when it goes.
#[derive(Debug)]
pub struct GuardOn<'g>(&'g Guard);

impl Drop for GuardOn<'_> {
    fn drop(&mut self) {
        self.0.on.store(false, Ordering::Relaxed);
        self.0.timed.store(false, Ordering::Relaxed);
    }
}

/// What an allowed action touches.
enum Touch<'a> {
    Nothing,
    Insert(&'a str),
    Update(&'a str),
    Delete(&'a str),
    Create,
    Alter,
    DropTable(&'a str),
    DropNamed { name: &'a str, table: &'a str },
    Temporary,
}

impl Touch<'_> {
    fn note(&self, touched: &mut Touched) {
        let note = |set: &mut BTreeSet<String>, name: &str| {
            if !set.contains(name) {
                set.insert(name.to_ascii_lowercase());
            }
        };
        match self {
            Self::Nothing => {}
            Self::Insert(name) => note(&mut touched.written, name),
            Self::Update(name) => {
                note(&mut touched.written, name);
                note(&mut touched.removed, name);
            }
            Self::Delete(name) => note(&mut touched.removed, name),
            Self::Create => touched.schema = true,
            Self::Alter => (touched.schema, touched.altered) = (true, true),
            Self::DropTable(name) => {
                note(&mut touched.removed, name);
                note(&mut touched.dropped_tables, name);
                (touched.schema, touched.altered) = (true, true);
            }
            Self::DropNamed { name, table } => {
                (touched.schema, touched.altered) = (true, true);
                // DROP TABLE asks for each of its triggers too.
                if !touched.dropped_tables.contains(&table.to_ascii_lowercase()) {
                    note(&mut touched.dropped, name);
                }
            }
            Self::Temporary => touched.temporary = true,
        }
    }
}

/// Whether an action is on the rows of a table that was lent. Pure.
fn is_lent(action: &AuthAction<'_>, lent: &[String]) -> bool {
    match *action {
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name } => lent.iter().any(|name| name.eq_ignore_ascii_case(table_name)),
        _ => false,
    }
}

/// Decides one action. Pure.
fn judge<'a>(action: &AuthAction<'a>, cascades: bool) -> Result<Touch<'a>, Denied> {
    let refuse = |why: String| Err(Denied::Refused(why));
    let ours = is_ours;
    let touching = |name: &str| refuse(format!("it touches {name}, and names that begin with {RESERVED} belong to whimbrel"));
    match *action {
        AuthAction::Transaction { operation } => match operation {
            TransactionOperation::Begin => Err(Denied::Instruction(Instruction::Begin)),
            TransactionOperation::Release | TransactionOperation::Unknown => Err(Denied::Instruction(Instruction::Commit)),
            TransactionOperation::Rollback => refuse("it rolls back, and what a migration does is all or nothing".to_owned()),
            _ => refuse("it controls the transaction".to_owned()),
        },
        AuthAction::Savepoint { savepoint_name, .. } => {
            refuse(format!("it uses the savepoint {savepoint_name:?}, and the transaction belongs to whimbrel"))
        }
        AuthAction::Attach { filename: "" } => refuse("VACUUM and ATTACH reach other files or cannot run in a transaction".to_owned()),
        AuthAction::Attach { .. } => refuse("ATTACH and VACUUM INTO reach other files".to_owned()),
        AuthAction::Detach { .. } => refuse("DETACH reaches other files".to_owned()),
        AuthAction::Pragma { pragma_name, pragma_value } => pragma(pragma_name, pragma_value),
        AuthAction::Function { function_name } if FUNCTIONS.iter().any(|f| function_name.eq_ignore_ascii_case(f)) => {
            refuse(format!("the function {function_name} reaches outside the database"))
        }
        AuthAction::CreateVtable { table_name, module_name } => {
            if ours(table_name) {
                touching(table_name)
            } else if MODULES.iter().any(|m| module_name.eq_ignore_ascii_case(m)) {
                Ok(Touch::Create)
            } else {
                refuse(format!("the virtual table module {module_name} is not one of {}", MODULES.join(", ")))
            }
        }
        AuthAction::CreateTempTrigger { trigger_name, .. } => refuse(format!("the temporary trigger {trigger_name} would act outside the migration")),
        AuthAction::Unknown { code, .. } => refuse(format!("SQLite asks for an action (code {code}) that this whimbrel does not know")),

        AuthAction::Read { table_name, .. } if ours(table_name) => touching(table_name),
        AuthAction::Insert { table_name } | AuthAction::Update { table_name, .. } | AuthAction::Delete { table_name } if ours(table_name) => {
            touching(table_name)
        }
        AuthAction::Insert { table_name } => Ok(Touch::Insert(table_name)),
        AuthAction::Update { table_name, .. } => Ok(Touch::Update(table_name)),
        AuthAction::Delete { table_name } => Ok(Touch::Delete(table_name)),
        AuthAction::DropTable { table_name } if cascades && !ours(table_name) => {
            refuse(format!("it drops the table {table_name} while foreign_keys = \"on\": cascades would take the rows that refer to it along"))
        }
        AuthAction::CreateTable { table_name }
        | AuthAction::DropTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::DropVtable { table_name, .. }
            if ours(table_name) =>
        {
            touching(table_name)
        }
        AuthAction::DropTable { table_name } | AuthAction::DropVtable { table_name, .. } => Ok(Touch::DropTable(table_name)),
        AuthAction::CreateTable { .. } => Ok(Touch::Create),
        AuthAction::AlterTable { .. } => Ok(Touch::Alter),
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name }
            if ours(name) || ours(table_name) =>
        {
            touching(if ours(name) { name } else { table_name })
        }
        AuthAction::DropIndex { index_name: name, table_name: table } | AuthAction::DropTrigger { trigger_name: name, table_name: table } => {
            Ok(Touch::DropNamed { name, table })
        }
        AuthAction::CreateIndex { .. } | AuthAction::CreateTrigger { .. } => Ok(Touch::Create),
        AuthAction::CreateView { view_name } | AuthAction::DropView { view_name } => {
            if ours(view_name) {
                touching(view_name)
            } else {
                Ok(if matches!(action, AuthAction::CreateView { .. }) { Touch::Create } else { Touch::Alter })
            }
        }
        AuthAction::Reindex { index_name } => {
            if ours(index_name) {
                touching(index_name)
            } else {
                Ok(Touch::Nothing)
            }
        }
        AuthAction::CreateTempIndex { .. }
        | AuthAction::CreateTempTable { .. }
        | AuthAction::CreateTempView { .. }
        | AuthAction::DropTempIndex { .. }
        | AuthAction::DropTempTable { .. }
        | AuthAction::DropTempTrigger { .. }
        | AuthAction::DropTempView { .. } => Ok(Touch::Temporary),
        AuthAction::Read { .. } | AuthAction::Select | AuthAction::Analyze { .. } | AuthAction::Function { .. } | AuthAction::Recursive => {
            Ok(Touch::Nothing)
        }
        _ => refuse("SQLite asks for an action that this whimbrel does not know".to_owned()),
    }
}

/// The name in a refused action that it is refused for. Pure.
fn culprit<'a>(action: &AuthAction<'a>) -> Option<&'a str> {
    let ours = |names: &[&'a str]| names.iter().copied().find(|n| n.get(..RESERVED.len()).is_some_and(|p| p.eq_ignore_ascii_case(RESERVED)));
    match *action {
        AuthAction::CreateVtable { table_name, module_name } => Some(ours(&[table_name]).unwrap_or(module_name)),
        AuthAction::Function { function_name } => Some(function_name),
        AuthAction::CreateTempTrigger { trigger_name, .. } => Some(trigger_name),
        AuthAction::Read { table_name, .. }
        | AuthAction::Insert { table_name }
        | AuthAction::Update { table_name, .. }
        | AuthAction::Delete { table_name }
        | AuthAction::CreateTable { table_name }
        | AuthAction::AlterTable { table_name, .. }
        | AuthAction::DropVtable { table_name, .. } => ours(&[table_name]),
        AuthAction::DropTable { table_name } => Some(table_name),
        AuthAction::CreateIndex { index_name: name, table_name }
        | AuthAction::DropIndex { index_name: name, table_name }
        | AuthAction::CreateTrigger { trigger_name: name, table_name }
        | AuthAction::DropTrigger { trigger_name: name, table_name } => ours(&[name, table_name]),
        AuthAction::CreateView { view_name: name } | AuthAction::DropView { view_name: name } | AuthAction::Reindex { index_name: name } => {
            ours(&[name])
        }
        _ => None,
    }
}

fn pragma<'a>(name: &'a str, value: Option<&str>) -> Result<Touch<'a>, Denied> {
    let name = name.to_ascii_lowercase();
    let switch = value.map(|v| {
        let v = v.trim_matches(['\'', '"']).to_ascii_lowercase();
        matches!(v.as_str(), "on" | "yes" | "true") || v.parse::<i64>().is_ok_and(|n| n != 0)
    });
    if let Some(on) = switch {
        match name.as_str() {
            "foreign_keys" => return Err(Denied::Instruction(Instruction::ForeignKeys(on))),
            "defer_foreign_keys" => return Err(Denied::Instruction(Instruction::DeferForeignKeys(on))),
            "legacy_alter_table" => return Err(Denied::Instruction(Instruction::LegacyAlterTable(on))),
            _ => {}
        }
    }
    // These four take a table or a number as an argument and still only read.
    let reads = READING_PRAGMAS.contains(&name.as_str())
        && (value.is_none() || name.ends_with("_info") || name.ends_with("_xinfo") || name.ends_with("_list") || name.ends_with("_check"));
    if reads || WRITING_PRAGMAS.contains(&name.as_str()) || matches!(name.as_str(), "foreign_keys" | "legacy_alter_table" | "defer_foreign_keys") {
        Ok(Touch::Nothing)
    } else if NO_EFFECT_PRAGMAS.contains(&name.as_str()) {
        Err(Denied::Refused(format!("PRAGMA {name} has no effect inside a transaction; it is the application's to set when it opens the file")))
    } else {
        Err(Denied::Refused(format!("PRAGMA {name} is not one that a migration may use")))
    }
}
