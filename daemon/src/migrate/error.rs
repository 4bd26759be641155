//! Why a migration did not happen: what, where, how it is retried and what can be done (DESIGN 8.9, 13).

use std::{path::PathBuf, time::Duration};

use rusqlite::ffi;
use whimbrel_shared::{
    ids::MigrationName,
    remedy::{Remedy, here, operator, wait},
    status::{Failure, FailureClass},
};

use super::script::ScriptError;
use crate::{
    store::{code_of, is_disk_full},
    sync::error::SyncError,
    trust::AcceptError,
};

/// Most new violations, drifted objects or broken views that a message names.
pub const NAMED: usize = 20;

/// Why one migration was not applied or reverted. Its transaction has been rolled back.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// A statement failed, was refused, or did not verify.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// Its `timeout` passed.
    #[error("it ran longer than its timeout of {timeout:?} and was rolled back")]
    Timeout {
        /// The limit.
        timeout: Duration,
    },
    /// Someone asked for it to stop.
    #[error("it was cancelled and rolled back")]
    Cancelled,
    /// The application held the file for longer than we wait.
    #[error("the application held the file for {waited:?}, longer than the {limit:?} that are waited")]
    Busy {
        /// How long it was waited.
        waited: Duration,
        /// The limit.
        limit: Duration,
    },
    /// A reader of the application kept a finished transaction from being committed (rollback-journal mode).
    #[error("a reader of the application kept COMMIT waiting for {waited:?}; it was rolled back so that new readers are let in")]
    CommitBusy {
        /// How long COMMIT was tried.
        waited: Duration,
    },
    /// An error ended the transaction while the script ran on.
    #[error("SQLite ended the transaction in the middle of it (a full disk or an interrupt does); nothing of it was kept")]
    LostTransaction,
    /// Our own tables in the file could not be used.
    #[error(transparent)]
    Store(#[from] crate::store::StoreError),
    /// What the exchange of rows keeps in the file could not be used.
    #[error(transparent)]
    Rows(SyncError),
    /// The file's history changed since it was looked at.
    #[error("the history in the file changed since it was looked at: {0}")]
    Moved(String),
    /// The bytes that are to run are not the ones that were accepted.
    #[error(transparent)]
    Trust(#[from] AcceptError),
    /// A row step cannot run as it is written.
    #[error("{place}: {why}")]
    BadStep {
        /// Migration, step and kind.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// A row of a `backfill` or `load` step failed.
    #[error("{place}: {}{message}", key.as_ref().map(|k| format!("row {k}: ")).unwrap_or_default())]
    Row {
        /// Migration, step and kind.
        place: String,
        /// Key of the row, or its line, where it is one row's.
        key: Option<String>,
        /// SQLite's extended result code.
        code: i32,
        /// What SQLite said.
        message: String,
    },
    /// A backfilled row still matches its `where`, and would be changed for ever.
    #[error("{place}: row {key} still matches `where` after `set`: the step would never end")]
    NotIdempotent {
        /// Migration, step and kind.
        place: String,
        /// Key of the row.
        key: String,
    },
    /// It has no down step.
    #[error("{0} has no down step, so it cannot be reverted")]
    NoDown(MigrationName),
    /// It left an object behind that names our tables.
    #[error("{object} names {prefix}*, which belongs to whimbrel", prefix = super::guard::RESERVED)]
    NamesOurs {
        /// The object.
        object: String,
    },
    /// It changed our tables.
    #[error("it made or changed {}; names that begin with {prefix} belong to whimbrel", named(objects), prefix = super::guard::RESERVED)]
    ChangedOurs {
        /// The objects.
        objects: Vec<String>,
    },
    /// A view or trigger no longer compiles.
    #[error("{} no longer compile{}: {}", objects.len(), if objects.len() == 1 { "s" } else { "" }, named(objects))]
    Broken {
        /// Object and message.
        objects: Vec<String>,
    },
    /// Rows would refer to rows that are not there.
    #[error("{total} row{} would violate a foreign key that did not before: {}", if *total == 1 { "" } else { "s" }, named(rows))]
    NewViolations {
        /// The first of them.
        rows: Vec<String>,
        /// How many.
        total: usize,
    },
    /// An object of the application's own went with its table and does not fit the new one.
    #[error("the application's own {object} was lost with its table and cannot be made again: {why}")]
    LostOwn {
        /// The object.
        object: String,
        /// What SQLite said.
        why: String,
    },
    /// The schema is not what the publisher's rehearsal gave.
    #[error("the schema after it is not what the publisher recorded: {}", named(drift))]
    WrongSchema {
        /// Object by object.
        drift: Vec<String>,
    },
    /// The schema is not what the chain left behind: somebody else changed it.
    #[error("the schema is not what the migrations before it left behind: {}", named(drift))]
    Drift {
        /// Object by object.
        drift: Vec<String>,
    },
    /// SQLite's own check found the file damaged, or could not read all of it.
    #[error("the file {verdict}: {0}", verdict = verdict(.0))]
    Damaged(String),
    /// SQLite failed outside the script.
    #[error("{doing}: {source}")]
    Sqlite {
        /// What was being done.
        doing: &'static str,
        /// SQLite's error.
        source: rusqlite::Error,
    },
    /// The backup that it asks for could not be made.
    #[error(transparent)]
    Backup(#[from] super::backup::BackupError),
    /// Another whimbrel works on the file.
    #[error("another whimbrel has been working on the file for {waited:?}")]
    OtherRunner {
        /// How long it was waited.
        waited: Duration,
    },
    /// The lock file could not be used.
    #[error("the lock file {path} cannot be used: {source}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

fn named(list: &[String]) -> String {
    let mut text = list.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if list.len() > NAMED {
        text.push_str(&format!("; and {} more", list.len() - NAMED));
    }
    text
}

/// Gives a rusqlite error its place.
pub fn sqlite(doing: &'static str) -> impl FnOnce(rusqlite::Error) -> ApplyError {
    move |source| ApplyError::Sqlite { doing, source }
}

/// How an error with this SQLite result code is retried (reference 2.9).
pub fn class_of(code: i32) -> FailureClass {
    match code & 0xff {
        ffi::SQLITE_BUSY
        | ffi::SQLITE_LOCKED
        | ffi::SQLITE_INTERRUPT
        | ffi::SQLITE_FULL
        | ffi::SQLITE_NOMEM
        | ffi::SQLITE_IOERR
        | ffi::SQLITE_PROTOCOL
        | ffi::SQLITE_CANTOPEN
        | ffi::SQLITE_READONLY
        | ffi::SQLITE_SCHEMA => FailureClass::Transient,
        // An index of a virtual table is out of step; the file is whole.
        ffi::SQLITE_CORRUPT if code == ffi::SQLITE_CORRUPT_VTAB => FailureClass::Permanent,
        ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB => FailureClass::Corrupt,
        _ => FailureClass::Permanent,
    }
}

fn remedy_of(code: i32) -> Remedy {
    match code & 0xff {
        _ if is_disk_full(code) => here("free some disk space; it is tried again by itself"),
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL => wait("the application is using the file; it is tried again by itself"),
        ffi::SQLITE_READONLY | ffi::SQLITE_CANTOPEN | ffi::SQLITE_PERM => {
            here("let the daemon's user read and write the file and its directory; it is tried again by itself")
        }
        ffi::SQLITE_INTERRUPT | ffi::SQLITE_NOMEM | ffi::SQLITE_IOERR | ffi::SQLITE_SCHEMA => wait("it is tried again by itself"),
        ffi::SQLITE_CORRUPT => here("restore the file from a backup; whimbrel leaves it alone until `whimbrel retry` says it is mended"),
        ffi::SQLITE_NOTADB => here("the file is not an SQLite database, or it is encrypted: correct `path` in the configuration"),
        _ => operator("publish a corrected revision, or correct the rows it stumbled over and run `whimbrel retry`"),
    }
}

/// What says something about the machine keeps its own name.
impl From<SyncError> for ApplyError {
    fn from(error: SyncError) -> Self {
        match error {
            SyncError::Store(error) => Self::Store(error),
            SyncError::Sqlite { doing, source } => Self::Sqlite { doing, source },
            SyncError::LostTransaction => Self::LostTransaction,
            other => Self::Rows(other),
        }
    }
}

impl ApplyError {
    /// A short stable code.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Script(ScriptError::Sqlite { code, .. }) => code_name(*code),
            Self::Script(ScriptError::Refused { .. }) => "refused",
            Self::Script(ScriptError::NotTrue { .. }) => "not_verified",
            Self::Script(ScriptError::Nul { .. }) => "nul_in_script",
            Self::Timeout { .. } => "timeout",
            Self::Cancelled => "cancelled",
            Self::Busy { .. } => "app_busy",
            Self::CommitBusy { .. } => "commit_busy",
            Self::LostTransaction => "lost_transaction",
            Self::Store(error) => match error.sqlite_code() {
                0 => "store",
                code => code_name(code),
            },
            Self::Rows(SyncError::Unsent { .. }) => "unsent_edits",
            Self::Rows(SyncError::Key { .. }) => "bad_key",
            Self::Rows(_) => "rows",
            Self::Moved(_) => "moved",
            Self::Trust(AcceptError::Store(error)) => match error.sqlite_code() {
                0 => "device_store",
                code => code_name(code),
            },
            Self::Trust(_) => "trust",
            Self::BadStep { .. } => "bad_step",
            Self::Row { code, .. } => code_name(*code),
            Self::NotIdempotent { .. } => "not_idempotent",
            Self::NoDown(_) => "no_down",
            Self::NamesOurs { .. } => "names_our_tables",
            Self::ChangedOurs { .. } => "changed_our_tables",
            Self::Broken { .. } => "does_not_compile",
            Self::NewViolations { .. } => "new_violations",
            Self::LostOwn { .. } => "lost_object",
            Self::WrongSchema { .. } => "wrong_schema",
            Self::Drift { .. } => "drift",
            Self::Damaged(found) => unread(found).map_or("corrupt", code_name),
            Self::Sqlite { source, .. } => code_name(code_of(source)),
            Self::Backup(error) => error.code(),
            Self::OtherRunner { .. } => "other_runner",
            Self::Lock { .. } => "lock_file",
        }
    }

    /// How it is retried.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Script(ScriptError::Sqlite { code, .. }) | Self::Row { code, .. } => class_of(*code),
            Self::Sqlite { source, .. } => class_of(code_of(source)),
            Self::Damaged(found) => unread(found).map_or(FailureClass::Corrupt, class_of),
            Self::Backup(error) => error.class(),
            // Our own store's trouble is not this migration's.
            Self::Trust(AcceptError::Store(_)) => FailureClass::Transient,
            Self::Store(error) if error.sqlite_code() != 0 => class_of(error.sqlite_code()),
            Self::Rows(SyncError::Key { .. }) => FailureClass::Permanent,
            Self::Timeout { .. }
            | Self::Cancelled
            | Self::Busy { .. }
            | Self::CommitBusy { .. }
            | Self::LostTransaction
            | Self::Store(_)
            | Self::Rows(_)
            | Self::Moved(_)
            | Self::OtherRunner { .. }
            | Self::Lock { .. } => FailureClass::Transient,
            Self::Script(ScriptError::Refused { .. } | ScriptError::NotTrue { .. } | ScriptError::Nul { .. })
            | Self::Trust(_)
            | Self::BadStep { .. }
            | Self::NotIdempotent { .. }
            | Self::NoDown(_)
            | Self::NamesOurs { .. }
            | Self::ChangedOurs { .. }
            | Self::Broken { .. }
            | Self::NewViolations { .. }
            | Self::LostOwn { .. }
            | Self::WrongSchema { .. }
            | Self::Drift { .. } => FailureClass::Permanent,
        }
    }

    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Script(ScriptError::Sqlite { code, .. }) => remedy_of(*code),
            Self::Sqlite { source, .. } => remedy_of(code_of(source)),
            Self::Script(ScriptError::Refused { .. } | ScriptError::Nul { .. }) | Self::NamesOurs { .. } | Self::ChangedOurs { .. } => {
                operator("publish a revision without that statement")
            }
            Self::Script(ScriptError::NotTrue { .. }) => {
                operator("look at the rows the statement finds; correct them or publish a revision, then run `whimbrel retry`")
            }
            Self::Timeout { .. } => operator("it is tried again by itself; a larger `timeout` in migration.toml lets it run longer"),
            Self::Cancelled => here("`whimbrel apply` starts it again"),
            Self::Busy { .. } | Self::CommitBusy { .. } => wait("the application is using the file; it is tried again by itself"),
            Self::LostTransaction | Self::Moved(_) | Self::OtherRunner { .. } => wait("it is tried again by itself"),
            Self::Store(error) => error.remedy(),
            Self::Rows(error) => error.remedy(),
            Self::Trust(error) => error.remedy(),
            Self::BadStep { .. } | Self::NotIdempotent { .. } => operator("publish a revision with a corrected step"),
            Self::Row { .. } => {
                operator("correct the row and run `whimbrel retry`; or publish a revision, with `on_error = \"collect\"` to go on without it")
            }
            Self::NoDown(_) => operator("publish a new migration that undoes it"),
            Self::Broken { .. } => operator("publish a revision that drops or recreates these objects"),
            Self::NewViolations { .. } => operator("publish a revision that keeps these rows' parents, or correct the rows and run `whimbrel retry`"),
            Self::LostOwn { .. } => here("drop or correct that object, then run `whimbrel retry`"),
            Self::WrongSchema { .. } => operator("the migration's result depends on what was in the file: publish a revision that does not"),
            Self::Damaged(found) => remedy_of(unread(found).unwrap_or(ffi::SQLITE_CORRUPT)),
            Self::Backup(error) => error.remedy(),
            Self::Drift { .. } => here("restore the named objects as the migrations made them, then run `whimbrel retry`"),
            Self::Lock { .. } => here("let the daemon's user write the directory of the database; it is tried again by itself"),
        }
    }

    /// As it is kept, shown and reported.
    pub fn failure(&self) -> Failure {
        let item = match self {
            Self::Row { key, .. } => key.clone(),
            Self::NotIdempotent { key, .. } => Some(key.clone()),
            _ => None,
        };
        Failure { code: self.code().to_owned(), class: self.class(), message: self.to_string(), remedy: self.remedy(), item }
    }

    /// Whether somebody else's lock caused it.
    pub fn is_busy(&self) -> bool {
        let busy = |code: i32| code & 0xff == ffi::SQLITE_BUSY;
        match self {
            Self::Script(ScriptError::Sqlite { code, .. }) => busy(*code),
            Self::Sqlite { source, .. } => busy(code_of(source)),
            Self::Store(error) => busy(error.sqlite_code()),
            _ => false,
        }
    }

    /// Whether a full disk caused it.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::Script(ScriptError::Sqlite { code, .. }) => is_disk_full(*code),
            Self::Sqlite { source, .. } => is_disk_full(code_of(source)),
            Self::Store(error) | Self::Trust(AcceptError::Store(error)) => is_disk_full(error.sqlite_code()),
            Self::Backup(error) => error.is_disk_full(),
            _ => false,
        }
    }
}

fn verdict(found: &str) -> &'static str {
    if unread(found).is_some() { "could not be read" } else { "is damaged" }
}

/// The result code of a page that a check did not get to see. The check goes on and says it in words, as it does with real
/// damage ("unable to get the page. error code=266", `btree.c`); but a disk that failed once is no damaged file.
fn unread(found: &str) -> Option<i32> {
    let (_, code) = found.split_once("error code=")?;
    let code = code.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    (class_of(code) == FailureClass::Transient).then_some(code)
}

fn code_name(code: i32) -> &'static str {
    match code & 0xff {
        _ if is_disk_full(code) => "disk_full",
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => "app_busy",
        ffi::SQLITE_CONSTRAINT => "constraint",
        ffi::SQLITE_CORRUPT => "corrupt",
        ffi::SQLITE_NOTADB => "not_a_database",
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM => "read_only",
        ffi::SQLITE_CANTOPEN => "cannot_open",
        ffi::SQLITE_IOERR => "io_error",
        ffi::SQLITE_NOMEM => "out_of_memory",
        ffi::SQLITE_INTERRUPT => "interrupted",
        ffi::SQLITE_AUTH => "refused",
        ffi::SQLITE_TOOBIG => "too_big",
        _ => "sql_error",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_could_not_be_read_is_no_damage() {
        let check = |found: &str, code: &str, class: FailureClass| {
            let error = ApplyError::Damaged(found.to_owned());
            assert_eq!((error.code(), error.class()), (code, class), "{error}");
        };
        check("*** in database main ***\nTree 5 page 5: unable to get the page. error code=266", "io_error", FailureClass::Transient);
        check("*** in database main ***\nTree 5 page 5: unable to get the page. error code=11", "corrupt", FailureClass::Corrupt);
        check("*** in database main ***\nTree 5 page 5 cell 0: Rowid 3 out of order", "corrupt", FailureClass::Corrupt);
    }
}
