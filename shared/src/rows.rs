//! What a migration did to rows, counted: in its events, in reports, and on the screen. Pure. Keys and values of rows are
//! in it only where the device's owner said so.

use serde::{Deserialize, Serialize};

/// Most failed rows that travel by name.
pub const MOST_ITEMS: usize = 50;
/// Longest key and longest message of one of them, in characters.
pub const MOST_ITEM_CHARS: usize = 500;

/// What became of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowReport {
    /// Rows that statements and row steps changed, put in or deleted.
    pub changed: u64,
    /// Rows that a row step looked at and that needed nothing.
    pub skipped: u64,
    /// Rows that failed and were left out: all of them.
    pub failed: u64,
    /// SQLite's extended result codes of those, the most frequent first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub codes: Vec<CodeCount>,
    /// The first [`MOST_ITEMS`] of those, where the device may name them (`report_values`).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub items: Vec<NamedItem>,
    /// Where an online migration stands that is half done; none when it is over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<RowsAt>,
}

impl RowReport {
    /// Whether there is nothing to tell.
    pub fn is_empty(&self) -> bool {
        (self.changed, self.skipped, self.failed) == (0, 0, 0) && self.at.is_none()
    }
}

/// How many rows failed with one code. A list of these and no map: JSON's keys are text, and numbers are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeCount {
    /// SQLite's extended result code.
    pub code: i32,
    /// Rows.
    pub rows: u64,
}

/// A row that failed, by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedItem {
    /// Number of the step, from 1.
    pub step: u32,
    /// The row's key as a JSON array, or the line of a shipped file.
    pub key: String,
    /// What SQLite said.
    pub message: String,
}

/// A place inside an online migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsAt {
    /// Number of the step that is next or half done, from 1.
    pub step: u32,
    /// How many there are.
    pub steps: u32,
    /// Rows of that step that were looked at.
    pub done: u64,
    /// Rows there were when it began, about; 0 when it has not begun.
    pub total: u64,
}

impl RowsAt {
    /// How much of the step is done, from 0 to 100.
    pub fn percent(&self) -> u64 {
        self.done.saturating_mul(100).checked_div(self.total).unwrap_or(0).min(100)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_that_grew_or_has_not_begun_has_a_percentage_all_the_same() {
        let at = |done, total| RowsAt { step: 1, steps: 1, done, total }.percent();
        assert_eq!([at(0, 0), at(1, 3), at(3, 3), at(5, 3), at(u64::MAX, 1)], [0, 33, 100, 100, 100]);
    }
}
