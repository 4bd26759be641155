//! Where a migration stands on a database, and the facts that led there. Pure.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ids::{AppName, ClientId, Digest, EventId, MigrationName},
    remedy::Remedy,
    rows::RowReport,
};

/// Where one migration stands on one database. The seed systems' words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Not begun, or waiting behind a gate.
    Pending,
    /// Its intent is committed and its work is not.
    Running,
    /// Its effect, its history row and its report are committed.
    Completed,
    /// It was rolled back with an error; the chain stops here.
    Failed,
    /// Recorded as present without being run (a baseline).
    Skipped,
    /// Was completed, and its down step undid it.
    Reverted,
}

impl Status {
    /// The word as it stands on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Reverted => "reverted",
        }
    }

    /// The status for a word, if it is one.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Running, Self::Completed, Self::Failed, Self::Skipped, Self::Reverted].into_iter().find(|s| s.as_str() == word)
    }

    /// Whether the schema of this migration is in the file.
    pub fn is_in_place(self) -> bool {
        match self {
            Self::Completed | Self::Skipped => true,
            Self::Pending | Self::Running | Self::Failed | Self::Reverted => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Which way a migration is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// The up steps.
    Apply,
    /// The down step.
    Revert,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Apply => "apply",
            Self::Revert => "revert",
        })
    }
}

/// Who asked for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AskedBy {
    /// The server's plan.
    Plan,
    /// A person at the device.
    Person,
    /// The daemon itself, picking up after a crash.
    Recovery,
}

/// How an error is to be retried (DESIGN 8.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureClass {
    /// It will pass: busy, full, out of memory, our own deadline. Backoff; no attempt is counted.
    Transient,
    /// It will not pass by itself: an SQL error, a constraint, something not authorised.
    Permanent,
    /// The process died while it ran.
    Crash,
    /// The file is damaged. It is set aside and nothing is retried.
    Corrupt,
}

/// Why a migration failed, as it is kept, shown and reported.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A short stable code, such as `sql_error` or `new_violations`.
    pub code: String,
    /// How it is to be retried.
    pub class: FailureClass,
    /// What happened, with file, step, line and column where there is one.
    pub message: String,
    /// What can be done.
    pub remedy: Remedy,
    /// Key of the row that it is about, where it is one row's; the message has it too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
}

impl Failure {
    /// As it leaves the device: with `values` as it is, otherwise without the row's key.
    pub fn told(&self, values: bool) -> Self {
        Self { message: self.without_item(&self.message, values), item: self.item.clone().filter(|_| values), ..self.clone() }
    }

    /// A text that may repeat this failure's message, as it leaves the device.
    pub fn without_item(&self, text: &str, values: bool) -> String {
        match &self.item {
            Some(item) if !values => text.replace(&format!("row {item}"), "a row"),
            Some(_) | None => text.to_owned(),
        }
    }
}

/// What happened to a migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// The intent was committed; the work begins after it.
    Started,
    /// The work, the history and this event were committed together.
    Completed,
    /// The work was rolled back.
    Failed,
    /// A start found the intent of a process that had died.
    Crashed,
    /// The down step was committed.
    Reverted,
    /// A person (or a new revision) cleared a failure for another try.
    Retried,
    /// It was recorded as present without being run.
    Skipped,
    /// That record was taken back, without anything being run.
    GivenBack,
}

impl EventKind {
    /// The word as it stands on the wire and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Crashed => "crashed",
            Self::Reverted => "reverted",
            Self::Retried => "retried",
            Self::Skipped => "skipped",
            Self::GivenBack => "given_back",
        }
    }
}

/// One fact in a database's history, and, on its way to the server, one report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// Random; the same fact keeps it for ever.
    pub event_id: EventId,
    /// The database.
    pub client_id: ClientId,
    /// Its app.
    pub app: AppName,
    /// What happened.
    pub kind: EventKind,
    /// Which way it was run.
    pub operation: Operation,
    /// The migration.
    pub migration: MigrationName,
    /// Its place in the chain, from 1.
    pub version: u32,
    /// Which revision ran.
    pub revision: u32,
    /// Digest of the bytes that ran.
    pub digest: Digest,
    /// Where the migration stands after this fact.
    pub status: Status,
    /// Number of this attempt, from 1; 0 where nothing was run.
    pub attempt: u32,
    /// Who asked.
    pub by: AskedBy,
    /// When, in milliseconds since 1970, by the device's clock.
    pub at_ms: i64,
    /// How long the work took, in milliseconds, where work was done.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub took_ms: Option<u64>,
    /// Why it failed, where it did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub failure: Option<Failure>,
    /// Fingerprint of the chain's objects after this fact: where a run came to its end.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fingerprint: Option<Digest>,
    /// What became of rows, where any were looked at: of a migration that is done, of one that stopped half-way, and,
    /// with `retried`, of the rows that it had left.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub rows: Option<RowReport>,
    /// Whether a person had its `verify` steps left out.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub verify_skipped: bool,
}
