//! `GET /api/conflicts`: what did not go without a word, for operators.

use serde::{Deserialize, Serialize};

use crate::{
    change::Change,
    ids::{ClientId, SpaceName},
    manifest::SyncConflict,
    value::Value,
};

/// A page of conflicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConflictsResponse {
    /// Newest first.
    pub conflicts: Vec<KeptConflict>,
    /// Pass as `before` for the next page; none on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<i64>,
}

/// One conflict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptConflict {
    /// Its number.
    pub id: i64,
    /// Where.
    pub space: SpaceName,
    /// Whose change it was.
    pub client_id: ClientId,
    /// When it arrived, in milliseconds since 1970.
    pub at_ms: i64,
    /// Whether it waits for the client or a person.
    pub open: bool,
    /// What the newest version calls the table, if it has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub table_name: Option<String>,
    /// What happened.
    #[serde(flatten)]
    pub detail: Kept,
}

/// What is kept of a change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// What kind.
    pub kind: KeptKind,
    /// Id of the table.
    pub table: u32,
    /// The row's key.
    pub key: Vec<Value>,
    /// The version whose columns it names.
    pub schema: u32,
    /// The strategy that decided; none where none was asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strategy: Option<SyncConflict>,
    /// Both sides, column by column.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<KeptColumn>,
    /// The other row's key, where a unique set was taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_key: Option<Vec<Value>>,
    /// The change itself, where nothing of it was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub change: Option<Change>,
    /// What SQLite said, where a column could not be computed. It names no value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What met what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptKind {
    /// An edit met an edit.
    Edits,
    /// An edit arrived for a deleted row.
    EditOfDeleted,
    /// A deletion arrived for an edited row.
    DeletionOfEdited,
    /// A new row arrived under the key of another.
    KeyTaken,
    /// A row arrived with values that are another's.
    UniqueTaken,
    /// A version that is too old to say what it means.
    Held,
    /// A row of an older version, or an edit of one, for which a migration's backfill fails: its columns are as they were, or
    /// not said.
    NotLifted,
}

/// One column in question.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptColumn {
    /// Its id.
    pub column: u32,
    /// What arrived; none where that was a deletion.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub arrived: Option<Value>,
    /// What was there; none where that was a deletion or nothing.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "there")]
    pub there: Option<Value>,
    /// Whether what arrived stands.
    pub taken: bool,
}

/// `null` is a value, and not its absence.
fn there<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(d).map(Some)
}

impl KeptKind {
    /// Its word in stores and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Edits => "edits",
            Self::EditOfDeleted => "edit_of_deleted",
            Self::DeletionOfEdited => "deletion_of_edited",
            Self::KeyTaken => "key_taken",
            Self::UniqueTaken => "unique_taken",
            Self::Held => "held",
            Self::NotLifted => "not_lifted",
        }
    }

    /// Whether something was not written, so that it waits for the client or a person.
    pub fn is_open(self) -> bool {
        matches!(self, Self::KeyTaken | Self::UniqueTaken | Self::Held | Self::NotLifted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_null_is_told_from_a_side_that_was_not_there() {
        let check = |column: KeptColumn, json: &str| {
            assert_eq!(serde_json::to_string(&column).unwrap(), json);
            assert_eq!(serde_json::from_str::<KeptColumn>(json).unwrap(), column);
        };
        check(KeptColumn { column: 2, arrived: Some(Value::Null), there: None, taken: true }, r#"{"column":2,"arrived":null,"taken":true}"#);
        assert_eq!(serde_json::to_string(&KeptKind::EditOfDeleted).unwrap(), format!("{:?}", KeptKind::EditOfDeleted.as_str()));
    }
}
