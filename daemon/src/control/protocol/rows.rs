//! Rows that are exchanged: how they stand, what an exchange did, and what waits for a person.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};
use whimbrel_shared::value::Value;

use crate::{
    replicate::Replicated,
    sync::{decide::Choice, detach::Left, standing::Standing, verify::VerifiedTable},
};

/// What an order about rows came to on one database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsDone {
    /// The file.
    pub database: PathBuf,
    /// What went up and down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exchanged: Option<RowsMoved>,
    /// How both sides compare, table by table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compared: Option<Vec<VerifiedTable>>,
    /// What was decided, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<String>,
    /// What was left when the file was detached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detached: Option<Detached>,
}

/// Rows that moved in one exchange.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsMoved {
    /// Rows sent.
    pub pushed: u64,
    /// Of these, accepted as they were.
    pub accepted: u64,
    /// Of these, with something of another that stands.
    pub merged: u64,
    /// Of these, waiting for a decision.
    pub open: u64,
    /// Rows that landed.
    pub landed: u64,
    /// Whether the server told everything anew.
    pub anew: bool,
}

impl From<&Replicated> for RowsMoved {
    fn from(did: &Replicated) -> Self {
        let Replicated { pushed, accepted, merged, open, landed, anew, .. } = *did;
        Self { pushed, accepted, merged, open, landed, anew }
    }
}

/// A file that was detached.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detached {
    /// What was not exchanged.
    #[serde(flatten)]
    pub left: Left,
    /// The file that has it; none where there was nothing.
    pub file: Option<PathBuf>,
    /// Objects that were removed from the database.
    pub objects: usize,
}

/// How the rows of a database stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsView {
    /// In numbers.
    #[serde(flatten)]
    pub standing: Standing,
    /// When both sides last had nothing more to say, in milliseconds since 1970, as far as this daemon knows.
    pub checked_ms: Option<i64>,
    /// Rows that the last exchange moved.
    pub moved: RowsMoved,
    /// Why the last exchange ended early.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

/// A conflict. `whimbrel conflicts list --json` prints a list of these as `conflicts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictView {
    /// The file.
    pub database: PathBuf,
    /// Its number in that file.
    pub id: i64,
    /// The table's name; its id where it has none at this version.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// What met what.
    pub kind: String,
    /// Whether the row's edits wait for a decision.
    pub open: bool,
    /// When, in milliseconds since 1970.
    pub at_ms: i64,
    /// Both sides, column by column.
    pub columns: Vec<ConflictColumn>,
    /// The key of the row that has the unique values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_key: Option<Vec<Value>>,
    /// Why, in the server's words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The oldest version of the schema that the server takes it from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_schema: Option<u32>,
    /// What was decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decided: Option<String>,
    /// What decides it.
    pub choices: Vec<Choice>,
}

/// One column of a conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictColumn {
    /// Its name; its id where it has none at this version.
    pub column: String,
    /// What was written here; none where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "held")]
    pub mine: Option<Value>,
    /// What the server has; none where it has nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "held")]
    pub theirs: Option<Value>,
}

/// A NULL that is there is not a value that is not.
fn held<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

/// A row of the server that cannot land yet. `whimbrel quarantine list --json` prints a list of these as `rows`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingView {
    /// The file.
    pub database: PathBuf,
    /// The table's name; its id where it has none at this version.
    pub table: String,
    /// The row's key.
    pub key: Vec<Value>,
    /// Its version at the server.
    pub version: u64,
    /// Its values by column, in the order of the table; none where it was deleted.
    pub values: Option<Vec<WaitingColumn>>,
    /// Why it cannot land, as a word.
    pub code: String,
    /// Why, for a person.
    pub why: String,
    /// Since when, in milliseconds since 1970.
    pub at_ms: i64,
    /// How often it was tried.
    pub tries: u32,
}

/// One column of a row that waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingColumn {
    /// Its name; its id where it has none at this version.
    pub column: String,
    /// Its value.
    pub value: Value,
}
