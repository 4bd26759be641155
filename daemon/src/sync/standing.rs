//! How the rows of a file stand, in numbers: what `status` shows. Read in a moment, however large the file is.

use std::collections::BTreeMap;

use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::{
    error::{SyncError, sqlite},
    names,
};
use crate::store::{exchange, journal};

/// Counting stops here: 10,000 entries of an index take about a millisecond, and nobody reads the difference.
pub const MOST_COUNTED: u32 = 10_000;

/// How the rows of one file stand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// Rows with unsent edits; [`MOST_COUNTED`] stands for that many or more.
    pub unsent: u32,
    /// Changes that were not looked at yet.
    pub unfolded: u64,
    /// How far rows of the space were told.
    pub cursor: u64,
    /// Rows of the server that cannot land yet; [`MOST_COUNTED`] stands for that many or more.
    pub quarantined: u32,
    /// Conflicts that wait for a decision; [`MOST_COUNTED`] stands for that many or more.
    pub conflicts_open: u32,
    /// When rows last moved, in milliseconds since 1970; none where none ever did.
    pub exchanged_ms: Option<i64>,
    /// The tables of which anything waits, by id.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tables: Vec<TableStanding>,
}

/// What waits of one table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableStanding {
    /// Its id.
    pub table: u32,
    /// What it is called; none where that is not known.
    pub name: Option<String>,
    /// As in [`Standing`].
    pub unsent: u32,
    /// As in [`Standing`].
    pub quarantined: u32,
    /// As in [`Standing`].
    pub conflicts_open: u32,
}

impl Standing {
    /// Whether nothing waits for anybody.
    pub fn is_settled(&self) -> bool {
        self.unsent == 0 && self.unfolded == 0 && self.quarantined == 0 && self.conflicts_open == 0
    }
}

/// How the file stands; none where it exchanges no rows. Only reads.
pub fn read(connection: &Connection) -> Result<Option<Standing>, SyncError> {
    if !journal::is_there(connection)? {
        return Ok(None);
    }
    let extent = journal::extent(connection)?;
    let stands = exchange::read(connection)?;
    let mut tables: BTreeMap<u32, TableStanding> = BTreeMap::new();
    let unsent = count(connection, "FROM main._whimbrel_outbox", &mut tables, |table| &mut table.unsent)?;
    let quarantined = count(connection, "FROM main._whimbrel_quarantine", &mut tables, |table| &mut table.quarantined)?;
    let conflicts_open = count(connection, "FROM main._whimbrel_conflict WHERE open", &mut tables, |table| &mut table.conflicts_open)?;
    if !tables.is_empty() {
        let mut names = names::tables(connection)?;
        tables.values_mut().for_each(|table| table.name = names.remove(&table.table));
    }
    Ok(Some(Standing {
        unsent,
        unfolded: u64::try_from(extent.last - extent.begin()).unwrap_or(0),
        cursor: stands.cursor,
        quarantined,
        conflicts_open,
        exchanged_ms: stands.exchanged_ms,
        tables: tables.into_values().collect(),
    }))
}

fn count(
    connection: &Connection,
    what: &str,
    tables: &mut BTreeMap<u32, TableStanding>,
    of: impl Fn(&mut TableStanding) -> &mut u32,
) -> Result<u32, SyncError> {
    let doing = "counting what waits";
    let sql = format!("SELECT tab, count(*) FROM (SELECT tab {what} LIMIT {MOST_COUNTED}) GROUP BY tab");
    let mut statement = connection.prepare_cached(&sql).map_err(sqlite(doing))?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).and_then(Iterator::collect::<Result<Vec<(u32, u32)>, _>>);
    let mut sum = 0;
    for (table, rows) in rows.map_err(sqlite(doing))? {
        *of(tables.entry(table).or_insert_with(|| TableStanding { table, ..TableStanding::default() })) = rows;
        sum += rows;
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_exchanges_no_rows_stands_nowhere_and_a_new_one_is_settled() {
        let connection = Connection::open_in_memory().unwrap();
        assert_eq!(read(&connection).unwrap(), None);
        journal::make(&connection).unwrap();
        let standing = read(&connection).unwrap().unwrap();
        assert!(standing.is_settled() && standing.exchanged_ms.is_none(), "{standing:?}");
    }

    #[test]
    fn what_waits_is_counted_by_table_and_no_further_than_anybody_reads() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        connection
            .execute_batch(
                "INSERT INTO _whimbrel_outbox SELECT 1 + value % 2, value, 0, 0, 0, value, 1, x'01' FROM
                     (WITH RECURSIVE n(value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 10100) SELECT value FROM n);
                 INSERT INTO _whimbrel_quarantine VALUES (2, 7, 0, 0, 0, 1, '{}', 'unique', 'x', 1, 0);
                 INSERT INTO _whimbrel_conflict (tab, k1, k2, k3, k4, kind, open, seq, at_ms, detail) VALUES
                     (2, 7, 0, 0, 0, 'held', 1, 1, 1, '{}'), (2, 7, 0, 0, 0, 'edits', 0, 1, 1, '{}');
                 INSERT INTO _whimbrel_journal (tab, k1, mask, wall_ms) VALUES (1, 1, 1, 1), (1, 2, 1, 1);
                 INSERT INTO _whimbrel_name VALUES (2, 0, 'item');",
            )
            .unwrap();
        let standing = read(&connection).unwrap().unwrap();
        assert_eq!((standing.unsent, standing.unfolded, standing.quarantined, standing.conflicts_open), (MOST_COUNTED, 2, 1, 1));
        let item = standing.tables.iter().find(|t| t.table == 2).unwrap();
        assert_eq!((item.name.as_deref(), item.quarantined, item.conflicts_open), (Some("item"), 1, 1));
        let view: (i64, i64, i64, i64) = connection
            .query_row("SELECT unsent, unfolded, conflicts_open, quarantined FROM _whimbrel_sync", [], |r| {
                Ok((r.get(0)?, r.get(1)?, r.get(2)?, r.get(3)?))
            })
            .unwrap();
        assert_eq!(view, (10_100, 2, 1, 1));
        let named: (String, i64, String) = connection
            .query_row("SELECT table_name, key, kind FROM _whimbrel_conflicts WHERE open", [], |r| Ok((r.get(0)?, r.get(1)?, r.get(2)?)))
            .unwrap();
        assert_eq!(named, ("item".to_owned(), 7, "held".to_owned()));
        let waits: (String, String) =
            connection.query_row("SELECT table_name, code FROM _whimbrel_waiting", [], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        assert_eq!(waits, ("item".to_owned(), "unique".to_owned()));
    }
}
