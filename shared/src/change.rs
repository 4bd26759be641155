//! One row's change on its way to the server, and one row on its way down. Pure. Values go by column id, so that what was
//! written under an old name of a column still finds it; a column that is not there is not NULL, it is not said.

use serde::{Deserialize, Serialize};

use crate::{
    columns::MAX_ID,
    hlc::Clock,
    synced::MAX_KEY_COLUMNS,
    value::{Value, ValueHash},
};

/// Most rows in one page, up or down.
pub const MAX_PAGE_ROWS: usize = 10_000;
/// Most cells in one page: a cell of a few bytes costs some forty in memory.
pub const MAX_PAGE_CELLS: usize = 400_000;
/// Largest row, in bytes of its values. Larger ones are refused by name, and stay where they are.
pub const MAX_ROW_BYTES: usize = 2 * 1024 * 1024;
/// Most bytes of values in one page; a page ends before the row that would go beyond. At least two rows always fit.
pub const MAX_PAGE_BYTES: usize = 2 * MAX_ROW_BYTES;
/// Longest key, in bytes of its values: it stands in indexes, answers and lists.
pub const MAX_KEY_BYTES: usize = 4096;

/// One row that a client changed: who it is, and what of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Id of its table.
    pub table: u32,
    /// Its primary key, in the order of [`crate::synced::Synced::key`]. Key columns are no cells.
    pub key: Vec<Value>,
    /// What became of it.
    pub edit: Edit,
}

/// What became of a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Edit {
    /// It is there.
    Present {
        /// The server's version of the row that this file has seen; 0: none, so it is new.
        #[serde(default, skip_serializing_if = "is_zero")]
        seen: u64,
        /// The columns that changed, by ascending id. May be empty only for a row that is new.
        cells: Vec<Cell>,
    },
    /// It is gone.
    Deleted {
        /// The server's version that this file had seen when it was first touched; 0: none.
        #[serde(default, skip_serializing_if = "is_zero")]
        base: u64,
        /// When.
        clock: Clock,
    },
}

fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// One column of a change. JSON: `[column, value, base, clock]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, Value, u64, Clock)", into = "(u32, Value, u64, Clock)")]
pub struct Cell {
    /// Id of the column.
    pub column: u32,
    /// Its value now.
    pub value: Value,
    /// The server's version of the row that this file had seen when the column was first touched; 0: none. An edit of
    /// another that is later than this one was not seen.
    pub base: u64,
    /// When it was last written.
    pub clock: Clock,
}

impl From<(u32, Value, u64, Clock)> for Cell {
    fn from((column, value, base, clock): (u32, Value, u64, Clock)) -> Self {
        Self { column, value, base, clock }
    }
}

impl From<Cell> for (u32, Value, u64, Clock) {
    fn from(cell: Cell) -> Self {
        (cell.column, cell.value, cell.base, cell.clock)
    }
}

/// One row as the server has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// Id of its table.
    pub table: u32,
    /// Its primary key.
    pub key: Vec<Value>,
    /// The space's number of its last change. What a file records as seen, once it has landed the row.
    pub version: u64,
    /// The latest clock in it: who lands it advances past this.
    pub clock: Clock,
    /// Its values by ascending column id, without the key: those that the server has and the asking version knows. None
    /// for a row that was deleted.
    pub values: Option<Vec<(u32, Value)>>,
}

/// Why a change or a row cannot be taken, from its own shape alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRow {
    /// Key without columns or with too many.
    #[error("a key has 1 to {MAX_KEY_COLUMNS} columns, and this one has {0}")]
    KeyColumns(usize),
    /// NULL in the key.
    #[error("a key has no NULL: two rows with one could not be told apart")]
    KeyNull,
    /// A key that is too long.
    #[error("the key has {0} bytes; at most {MAX_KEY_BYTES} are exchanged")]
    KeyBytes(usize),
    /// Ids out of range or order.
    #[error("column ids go up from 1 to {MAX_ID} and none stands twice; {id} follows {after}")]
    Columns {
        /// The id.
        id: u32,
        /// The one before; 0 at the first.
        after: u32,
    },
    /// No column of a row that is not new.
    #[error("it changes no column of a row that is not new")]
    Nothing,
    /// A base after what was seen.
    #[error("column {column} was touched at version {base}, and the file has seen only {seen}")]
    BaseAhead {
        /// The column.
        column: u32,
        /// Its base.
        base: u64,
        /// What the file has seen.
        seen: u64,
    },
    /// Values that are too large.
    #[error("the row has {0} bytes of values; at most {MAX_ROW_BYTES} are exchanged")]
    Bytes(usize),
}

impl Change {
    /// Whether it can be one at all; what tables and columns there are is another question.
    pub fn check(&self) -> Result<(), BadRow> {
        if self.key.is_empty() || self.key.len() > MAX_KEY_COLUMNS {
            return Err(BadRow::KeyColumns(self.key.len()));
        }
        if self.key.contains(&Value::Null) {
            return Err(BadRow::KeyNull);
        }
        let key_bytes = self.key.iter().map(Value::size_bytes).sum();
        if key_bytes > MAX_KEY_BYTES {
            return Err(BadRow::KeyBytes(key_bytes));
        }
        let Edit::Present { seen, cells } = &self.edit else { return Ok(()) };
        let mut after = 0;
        for cell in cells {
            if cell.column <= after || cell.column > MAX_ID {
                return Err(BadRow::Columns { id: cell.column, after });
            }
            if cell.base > *seen {
                return Err(BadRow::BaseAhead { column: cell.column, base: cell.base, seen: *seen });
            }
            after = cell.column;
        }
        if cells.is_empty() && *seen != 0 {
            return Err(BadRow::Nothing);
        }
        match self.size_bytes() {
            bytes if bytes > MAX_ROW_BYTES => Err(BadRow::Bytes(bytes)),
            _ => Ok(()),
        }
    }

    /// Bytes of its values, its key with them.
    pub fn size_bytes(&self) -> usize {
        let cells: &[Cell] = match &self.edit {
            Edit::Present { cells, .. } => cells,
            Edit::Deleted { .. } => &[],
        };
        self.key.iter().chain(cells.iter().map(|c| &c.value)).map(Value::size_bytes).sum()
    }

    /// What an acknowledgement of it names: each column with the hash of the value that was sent. Empty for a deletion.
    pub fn sent(&self) -> Vec<(u32, ValueHash)> {
        match &self.edit {
            Edit::Present { cells, .. } => cells.iter().map(|c| (c.column, c.value.hash())).collect(),
            Edit::Deleted { .. } => Vec::new(),
        }
    }

    /// The latest clock in it; [`Clock::ZERO`] where it has no cell.
    pub fn clock(&self) -> Clock {
        match &self.edit {
            Edit::Present { cells, .. } => cells.iter().map(|c| c.clock).max().unwrap_or_default(),
            Edit::Deleted { clock, .. } => *clock,
        }
    }
}

impl Row {
    /// Bytes of its values, its key with them.
    pub fn size_bytes(&self) -> usize {
        let values = self.values.iter().flatten().map(|(_, value)| value);
        self.key.iter().chain(values).map(Value::size_bytes).sum()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::value::tests::values;

    pub(crate) fn clocks() -> impl Strategy<Value = Clock> {
        (0u64..1 << 40, 0u64..4).prop_map(|(wall, counter)| Clock::from_bits(wall << 16 | counter).unwrap())
    }

    pub(crate) fn changes() -> impl Strategy<Value = Change> {
        let cells = prop::collection::btree_map(1u32..9, (values(), 0u64..6, clocks()), 0..5);
        let present = (5u64..1 << 40, cells).prop_map(|(seen, cells)| {
            let cells: Vec<Cell> =
                cells.into_iter().map(|(column, (value, base, clock))| Cell { column, value, base: base.min(seen), clock }).collect();
            Edit::Present { seen: if cells.is_empty() { 0 } else { seen }, cells }
        });
        let deleted = (any::<u64>(), clocks()).prop_map(|(base, clock)| Edit::Deleted { base, clock });
        let key = prop::collection::vec(values().prop_filter("a key has no NULL", |v| *v != Value::Null), 1..3);
        (1u32..4, key, prop_oneof![4 => present, 1 => deleted]).prop_map(|(table, key, edit)| Change { table, key, edit })
    }

    fn present(key: Vec<Value>, seen: u64, cells: &[(u32, u64)]) -> Change {
        let cells = cells.iter().map(|(column, base)| Cell { column: *column, value: Value::Null, base: *base, clock: Clock::ZERO }).collect();
        Change { table: 1, key, edit: Edit::Present { seen, cells } }
    }

    #[test]
    fn a_change_that_cannot_be_one_says_why() {
        let one = || vec![Value::Integer(1)];
        let check = |change: Change, expected: Result<(), BadRow>| assert_eq!(change.check(), expected, "{change:?}");
        check(present(one(), 0, &[]), Ok(()));
        check(present(one(), 3, &[(1, 3), (2, 1)]), Ok(()));
        check(present(vec![], 0, &[]), Err(BadRow::KeyColumns(0)));
        check(present(vec![Value::Integer(1); 5], 0, &[]), Err(BadRow::KeyColumns(5)));
        check(present(vec![Value::Null], 0, &[]), Err(BadRow::KeyNull));
        check(present(vec![Value::Blob(vec![0; 5000])], 0, &[]), Err(BadRow::KeyBytes(5004)));
        check(present(one(), 3, &[(2, 1), (2, 1)]), Err(BadRow::Columns { id: 2, after: 2 }));
        check(present(one(), 3, &[(0, 1)]), Err(BadRow::Columns { id: 0, after: 0 }));
        check(present(one(), 3, &[]), Err(BadRow::Nothing));
        check(present(one(), 3, &[(1, 4)]), Err(BadRow::BaseAhead { column: 1, base: 4, seen: 3 }));
        let mut large = present(one(), 0, &[(1, 0)]);
        let Edit::Present { cells, .. } = &mut large.edit else { unreachable!() };
        cells[0].value = Value::Blob(vec![0; MAX_ROW_BYTES]);
        check(large, Err(BadRow::Bytes(MAX_ROW_BYTES + 13)));
    }

    proptest! {
        #[test]
        fn a_change_comes_back_from_json(change in changes()) {
            prop_assert!(change.check().is_ok());
            prop_assert_eq!(serde_json::from_str::<Change>(&serde_json::to_string(&change).unwrap()).unwrap(), change);
        }
    }
}
