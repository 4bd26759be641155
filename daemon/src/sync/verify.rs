//! Proof that a file and its space hold the same rows: one sum per column on each side (`shared/src/sums.rs`), compared.

use std::collections::BTreeSet;

use rusqlite::{Connection, params_from_iter};
use serde::{Deserialize, Serialize};
use whimbrel_shared::{
    change::Row,
    columns::ColumnMap,
    sql::quote,
    sums::{ColumnSum, TableSums},
    value::Value,
};

use super::{
    error::{SyncError, sqlite},
    rows::unreadable,
    shape::Captured,
    tables::Tables,
    values::{canonical, told, value},
};
use crate::store::{exchange, journal, key::Key, outbox};

/// Rows that are read at once: no read of ours lasts longer.
const AT_ONCE: i64 = 500;

/// How a file compares with its space.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verified {
    /// Tables that were compared, by id.
    pub tables: Vec<VerifiedTable>,
}

/// One table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifiedTable {
    /// Its id.
    pub table: u32,
    /// Its name.
    pub name: String,
    /// Rows in the file, and at the server.
    pub rows: (u64, u64),
    /// Whether both have the same keys.
    pub keys: bool,
    /// Names of the columns that differ.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
    /// Names of columns that the server was not told for every row, so that they cannot be compared: those that came with a
    /// default, in rows that nobody wrote since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unsaid: Vec<String>,
}

impl VerifiedTable {
    /// Whether nothing differs.
    pub fn is_equal(&self) -> bool {
        self.keys && self.differs.is_empty()
    }
}

/// Why a file cannot be compared now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unequal {
    /// Something is not sent.
    #[error("{0} rows are not sent yet")]
    Unsent(u64),
    /// Something was not told.
    #[error("the space is at {space} and the file was told up to {file}")]
    Behind {
        /// The server's number.
        space: u64,
        /// The file's.
        file: u64,
    },
    /// The application wrote.
    #[error("the application wrote while its rows were read")]
    Written,
}

/// Where a file stood when its sums were begun.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    last: i64,
    cursor: u64,
}

fn mark(connection: &Connection) -> Result<Result<Mark, Unequal>, SyncError> {
    let extent = journal::extent(connection)?;
    if !extent.is_folded() {
        return Ok(Err(Unequal::Written));
    }
    Ok(match outbox::count(connection)? {
        0 => Ok(Mark { last: extent.last, cursor: exchange::read(connection)?.cursor }),
        unsent => Err(Unequal::Unsent(unsent)),
    })
}

/// Sums the file's rows as `theirs`, which the server summed at number `version`, and compares. Reads in short pieces and
/// leaves the application a `rest` after each; what it writes meanwhile is noticed. Rows wait in quarantine where `keys` is
/// false and nobody lost anything.
pub fn verify(
    connection: &Connection,
    tables: &Tables,
    map: &ColumnMap,
    theirs: &[TableSums],
    version: u64,
    rest: &mut dyn FnMut(),
) -> Result<Result<Verified, Unequal>, SyncError> {
    let begun = match mark(connection)? {
        Ok(mark) => mark,
        Err(why) => return Ok(Err(why)),
    };
    if begun.cursor < version {
        return Ok(Err(Unequal::Behind { space: version, file: begun.cursor }));
    }
    let mut done = Verified::default();
    for theirs in theirs {
        let Some(shape) = tables.get(theirs.table).and_then(|t| t.shape.as_ref()) else { continue };
        let ids: Vec<u32> = theirs.columns.iter().map(|(id, _)| *id).collect();
        let mut ours = TableSums::new(theirs.table, &ids);
        add(connection, shape, &mut ours, rest)?;
        done.tables.push(compare(&ours, theirs, shape, map));
    }
    Ok(if mark(connection)? == Ok(begun) { Ok(done) } else { Err(Unequal::Written) })
}

/// Compares two sums of one table. Pure.
fn compare(ours: &TableSums, theirs: &TableSums, shape: &Captured, map: &ColumnMap) -> VerifiedTable {
    let here: BTreeSet<u32> = shape.columns.iter().map(|c| c.id).collect();
    let name = |id: u32| {
        let columns = map.table_by_id(shape.id).map_or(&[][..], |t| &t.columns);
        columns.iter().find(|c| c.id == id).map_or_else(|| format!("column {id}"), |c| c.name.clone())
    };
    let (mut differs, mut unsaid) = (Vec::new(), Vec::new());
    let empty = ColumnSum::default();
    for (id, told) in theirs.columns.iter().filter(|(id, _)| here.contains(id)) {
        let held = ours.columns.iter().find(|(other, _)| other == id).map_or(&empty, |(_, sum)| sum);
        if told.rows < theirs.keys.rows {
            unsaid.push(name(*id));
        } else if told != held {
            differs.push(name(*id));
        }
    }
    let rows = (ours.keys.rows, theirs.keys.rows);
    VerifiedTable { table: shape.id, name: shape.name.clone(), rows, keys: ours.keys == theirs.keys, differs, unsaid }
}

/// Adds every row of a table, in the order of its key.
fn add(connection: &Connection, shape: &Captured, sums: &mut TableSums, rest: &mut dyn FnMut()) -> Result<(), SyncError> {
    let mut after: Option<Key> = None;
    loop {
        let rows = some(connection, shape, after.as_ref())?;
        for row in &rows {
            // How a key is spelled is each file's own.
            let Some(key) = canonical(&row.key, &shape.collations()) else { continue };
            sums.add(&told(&key), row.values.iter().flatten().map(|(id, value)| (*id, value)));
        }
        let Some(last) = rows.last().filter(|_| rows.len() as i64 == AT_ONCE) else { return Ok(()) };
        after = canonical(&last.key, &shape.collations());
        rest();
    }
}

/// Some rows after a key. Rows without a key stay on the device, and are passed over.
fn some(connection: &Connection, shape: &Captured, after: Option<&Key>) -> Result<Vec<Row>, SyncError> {
    let doing = "reading rows to sum them";
    let keys: Vec<String> = shape.key.iter().map(|k| format!("t.{}", quote(&k.name))).collect();
    let order: Vec<String> = shape.key.iter().zip(&keys).map(|(k, name)| format!("{name} COLLATE {}", k.collation.name())).collect();
    let columns: Vec<String> = shape.columns.iter().map(|c| format!("t.{}", quote(&c.name))).collect();
    let mut conditions: Vec<String> = keys.iter().map(|name| format!("{name} IS NOT NULL")).collect();
    if after.is_some() {
        let marks: Vec<String> = (1..=keys.len()).map(|n| format!("?{n}")).collect();
        conditions.push(format!("({}) > ({})", order.join(", "), marks.join(", ")));
    }
    let sql = format!(
        "SELECT {} FROM main.{} AS t WHERE {} ORDER BY {} LIMIT {AT_ONCE}",
        keys.iter().chain(&columns).cloned().collect::<Vec<_>>().join(", "),
        quote(&shape.name),
        conditions.join(" AND "),
        order.join(", ")
    );
    let name = &shape.name;
    let mut statement = connection.prepare_cached(&sql).map_err(|e| unreadable(name, doing, e))?;
    let mut rows = statement.query(params_from_iter(after.iter().flat_map(|k| &k.0))).map_err(|e| unreadable(name, doing, e))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(|e| unreadable(name, doing, e))? {
        let read = |at: usize| Ok(value(row.get_ref(at)?));
        let key = (0..keys.len()).map(read).collect::<rusqlite::Result<Vec<Value>>>().map_err(sqlite(doing))?;
        let cells = shape.columns.iter().enumerate().map(|(at, c)| Ok((c.id, read(keys.len() + at)?)));
        let values = cells.collect::<rusqlite::Result<Vec<(u32, Value)>>>().map_err(sqlite(doing))?;
        found.push(Row { table: shape.id, key, version: 0, clock: whimbrel_shared::hlc::Clock::ZERO, values: Some(values) });
    }
    Ok(found)
}
