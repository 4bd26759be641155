//! A captured table as its triggers were written for: what identifies its rows, and the columns that are told apart. Pure.

use serde::{Deserialize, Serialize};

pub use crate::store::key::{Collation, MOST_KEY_COLUMNS};

/// The highest bit of a mask: it stands for all columns with this id or a higher one.
pub const LAST_BIT: u32 = 61;

/// The bit of a column in the masks of the journal.
pub fn bit(column: u32) -> i64 {
    1 << column.min(LAST_BIT)
}

/// What the triggers note of an edit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Which columns changed. The triggers name every column, so SQLite refuses the application's own `DROP COLUMN`.
    #[default]
    Mask,
    /// Only that the row changed. The triggers name the key alone, so the application can change its own schema.
    KeyOnly,
}

/// How what lands from the server is kept from being taken for an edit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Echo {
    /// Triggers are switched off on our connection.
    Switch,
    /// The application's triggers run, and ours with them: the fold after landing finds what the row says already, and
    /// keeps what the application's triggers made of it.
    Rewrite,
}

/// A column of the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyColumn {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// How two keys are compared, by the index of the primary key.
    pub collation: Collation,
    /// Whether the column's own collation, which may be another, takes different texts for the same.
    pub collated: bool,
    /// Whether it keeps 1 and 1.0 apart.
    pub untyped: bool,
}

impl KeyColumn {
    /// Whether the same key can be written in several ways, so that its value can change while the row stays the same.
    pub fn is_loose(&self) -> bool {
        self.untyped || self.collation != Collation::Binary
    }
}

/// A column outside the key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataColumn {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// Whether its own collation takes different texts for the same.
    pub collated: bool,
    /// Whether it keeps 1 and 1.0 apart.
    pub untyped: bool,
}

/// Finds the rows that a write would make room for by deleting them (`OR REPLACE`), of one UNIQUE index.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    /// Per term of the index: what it is in a row of the table, and in the new row, with the collation of the index.
    pub terms: Vec<(String, String)>,
    /// The condition of a partial index, for a row of the table.
    pub condition: Option<String>,
    /// Columns of which one has to be set for the index to be concerned; none: it cannot be told.
    pub of: Option<Vec<String>>,
}

/// A captured table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Captured {
    /// Its id.
    pub id: u32,
    /// Its name.
    pub name: String,
    /// What the triggers note.
    pub mode: Mode,
    /// How landing is told from editing.
    pub echo: Echo,
    /// Whether rows may land, or only be sent.
    pub push_only: bool,
    /// The declared primary key, in its order.
    pub key: Vec<KeyColumn>,
    /// Whether the key is the row id (`INTEGER PRIMARY KEY`).
    pub row_id: bool,
    /// The other columns that have ids, by id.
    pub columns: Vec<DataColumn>,
    /// For its UNIQUE indexes.
    pub probes: Vec<Probe>,
    /// UNIQUE indexes for which there is no probe: what they kill is found by a sweep.
    pub unprobed: Vec<String>,
}

impl Captured {
    /// How the key's columns are compared.
    pub fn collations(&self) -> Vec<Collation> {
        self.key.iter().map(|k| k.collation).collect()
    }

    /// Columns whose value can change while the row stays the same, as id and name, by id.
    pub fn tracked(&self) -> Vec<(u32, &str)> {
        let loose = self.key.iter().filter(|k| k.is_loose()).map(|k| (k.id, k.name.as_str()));
        let mut all: Vec<_> = self.columns.iter().map(|c| (c.id, c.name.as_str())).chain(loose).collect();
        all.sort_unstable();
        all
    }

    /// The mask of every column.
    pub fn everything(&self) -> i64 {
        self.columns.iter().map(|c| c.id).chain(self.key.iter().map(|k| k.id)).fold(0, |mask, id| mask | bit(id))
    }
}
