//! `GET /api/sync/pull`: the rows of a space, by its sequence, page by page.

use serde::{Deserialize, Serialize};

use super::push::{Reached, Series};
use crate::{change::Row, ids::ClientId};

/// What is asked, in the query of the address. A page that did not arrive is asked for again with the same cursor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullRequest {
    /// The database.
    pub client_id: ClientId,
    /// How often its file went back, from 1.
    pub epoch: u32,
    /// The version that its file has completed: which tables and columns it can land.
    pub schema: u32,
    /// What its cursor counts in; none for a first pull and for a snapshot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub series: Option<Series>,
    /// How far it has landed: it gets what comes after. 0: everything that there is.
    #[serde(default)]
    pub cursor: u64,
    /// The highest version that an answer to a push of this epoch gave, and that is recorded in the file: what it wrote
    /// itself up to there is not sent back.
    #[serde(default)]
    pub acked: u64,
    /// Another walk, from 0 up to `until`: only those tables and columns that `schema` has and this earlier version has
    /// not. A file whose schema has moved takes it once, with its cursor as `until`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since_schema: Option<u32>,
    /// Where that walk ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
    /// How far the file knows the space's sequence, whatever of it counts now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reached: Option<Reached>,
}

/// What stands before the rows of a page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullHead {
    /// What versions and cursors count in.
    pub series: Series,
    /// The server's time, in milliseconds since 1970.
    pub now_ms: i64,
    /// The cursor once this page has landed. It may be beyond the last row: what is between is none of this file's.
    pub next: u64,
    /// Whether there is another page now.
    pub more: bool,
    /// Rows that were left out because the file wrote them itself and knows the answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub echoes: u32,
    /// Tables that this schema has and cannot be told of, since a later version's `min_schema` is above it: they come once
    /// the file has moved, with `since_schema`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld: Vec<u32>,
    /// Deletions up to this version are forgotten: whoever makes such a row anew makes a new one.
    #[serde(default, skip_serializing_if = "is_start")]
    pub horizon: u64,
}

fn is_start(value: &u64) -> bool {
    *value == 0
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

/// A page.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PullResponse {
    /// Where it stands.
    #[serde(flatten)]
    pub head: PullHead,
    /// By ascending version; each row once, as it is now.
    pub rows: Vec<Row>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hlc::Clock, value::Value};

    #[test]
    fn the_wire_of_today() {
        let row = Row { table: 1, key: vec![Value::Integer(7)], version: 9, clock: Clock::ZERO, values: Some(vec![(2, Value::Null)]) };
        let head = PullHead { series: Series { space: 1, epoch: 2 }, now_ms: 5, next: 9, more: true, echoes: 0, withheld: Vec::new(), horizon: 0 };
        let page = PullResponse { head, rows: vec![row.clone(), Row { values: None, ..row }] };
        let golden = concat!(
            r#"{"series":"1.2","now_ms":5,"next":9,"more":true,"#,
            r#""rows":[{"table":1,"key":[7],"version":9,"clock":0,"values":[[2,null]]},{"table":1,"key":[7],"version":9,"clock":0,"values":null}]}"#
        );
        assert_eq!(serde_json::to_string(&page).unwrap(), golden);
        assert_eq!(serde_json::from_str::<PullResponse>(golden).unwrap(), page);
    }
}
