//! What is done to all that is known of rows at the server (`_whimbrel_row`), some at a time: a file may have a million, and
//! nobody waits for all of them. Every function runs inside the caller's transaction.

use rusqlite::{Connection, OptionalExtension, ToSql};

use super::{
    StoreError, at,
    exchange::Marking,
    journal::key_parameters,
    key::{Key, KeyValue, MOST_KEY_COLUMNS},
};

/// A row's table and key.
pub type At = (u32, Key);

/// Marks up to `most` of the rows that are known, after a place; [`Marking::Untold`] only those of `tables`. May begin again
/// at the beginning. Returns where it ended, if there may be more.
pub fn mark(connection: &Connection, marking: Marking, tables: &[u32], after: Option<&At>, most: u32) -> Result<Option<At>, StoreError> {
    let what = match marking {
        Marking::Untold => {
            let tables = tables.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            format!("UPDATE main._whimbrel_row SET version = -version WHERE version > 0 AND tab IN ({tables})")
        }
        Marking::NoSeries => "UPDATE main._whimbrel_row SET version = 0 WHERE version <> 0".to_owned(),
    };
    each(connection, &what, after, most)
}

/// Of up to `most` rows after a place, forgets those that were deleted in a version up to `horizon`. Returns where it ended,
/// if there may be more.
pub fn forget_gone(connection: &Connection, horizon: u64, after: Option<&At>, most: u32) -> Result<Option<At>, StoreError> {
    let gone = super::outbox::GONE;
    let what = format!("DELETE FROM main._whimbrel_row WHERE version BETWEEN 1 AND {horizon} AND hashes = x'{gone:02x}'");
    each(connection, &what, after, most)
}

/// Runs a statement that ends in a condition on the next rows.
fn each(connection: &Connection, what: &str, after: Option<&At>, most: u32) -> Result<Option<At>, StoreError> {
    const AFTER: &str = "(tab, k1, k2, k3, k4) > (?1, ?2, ?3, ?4, ?5)";
    const UNTIL: &str = "AND (tab, k1, k2, k3, k4) <= (?6, ?7, ?8, ?9, ?10)";
    let doing = "going through what is known of rows";
    // Before all tables: their ids begin with 1.
    let beginning = (0, Key(vec![KeyValue::Integer(0)]));
    let (table, key) = after.unwrap_or(&beginning);
    let after = key_parameters(table, key);
    let places = format!("SELECT tab, k1, k2, k3, k4 FROM main._whimbrel_row WHERE {AFTER} ORDER BY tab, k1, k2, k3, k4 LIMIT 1 OFFSET ?6");
    let offset = most.saturating_sub(1);
    let parameters: Vec<&dyn ToSql> = after.into_iter().chain([&offset as &dyn ToSql]).collect();
    let last = connection
        .prepare_cached(&places)
        .and_then(|mut s| s.query_row(&parameters[..], |row| Ok((row.get::<_, u32>(0)?, Key::read(row, 1, MOST_KEY_COLUMNS)?))).optional())
        .map_err(at(doing))?
        .and_then(|(table, key)| Some((table, key?)));
    let until = last.as_ref().map(|(table, key)| key_parameters(table, key));
    let until_sql = if until.is_some() { UNTIL } else { "" };
    let parameters: Vec<&dyn ToSql> = after.into_iter().chain(until.into_iter().flatten()).collect();
    connection.prepare_cached(&format!("{what} AND {AFTER} {until_sql}")).and_then(|mut s| s.execute(&parameters[..])).map_err(at(doing))?;
    Ok(last)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        journal,
        outbox::{Outbox, Recorded},
    };

    #[test]
    fn what_is_known_is_marked_some_at_a_time_and_nothing_else() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        let put = "INSERT INTO _whimbrel_row SELECT ?1, value, 'b', 0, 0, value + 1, x'01' FROM generate_series(0, 10)";
        let put = put.replace("generate_series(0, 10)", "json_each('[0,1,2,3,4,5,6,7,8,9,10]')");
        for table in [1, 2, 3] {
            connection.execute(&put, [table]).unwrap();
        }
        let versions = || -> Vec<(u32, i64)> {
            let mut query = connection.prepare("SELECT tab, version FROM _whimbrel_row ORDER BY tab, k1").unwrap();
            query.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect()
        };
        let all = |sign: &dyn Fn(u32) -> i64| (1..=3).flat_map(|t| (1..=11).map(move |v| (t, v))).map(|(t, v)| (t, v * sign(t))).collect::<Vec<_>>();
        for (marking, wanted) in [(Marking::Untold, all(&|t| if t == 2 { 1 } else { -1 })), (Marking::NoSeries, all(&|_| 0))] {
            let (mut after, mut parts) = (None, 0);
            loop {
                let before = versions();
                after = mark(&connection, marking, &[1, 3], after.as_ref(), 4).unwrap();
                let moved = before.iter().zip(versions()).filter(|(a, b)| **a != *b).count();
                assert!(moved <= 4, "{moved} at once");
                parts += 1;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!((versions(), parts), (wanted.clone(), 9));
            // One that was cut off begins at the beginning.
            mark(&connection, marking, &[1, 3], None, 100).unwrap();
            assert_eq!(versions(), wanted);
        }
    }

    #[test]
    fn deletions_are_forgotten_up_to_the_horizon_and_nothing_else_is() {
        let connection = Connection::open_in_memory().unwrap();
        journal::make(&connection).unwrap();
        let mut outbox = Outbox::open(&connection).unwrap();
        let key = |n| Key(vec![KeyValue::Integer(n)]);
        for n in 1..=20 {
            let gone = n % 2 == 0;
            let hashes = if gone { Vec::new() } else { vec![(2, 7)] };
            outbox.record(1, &key(n), Some(&Recorded { version: n.unsigned_abs(), hashes, gone, untold: n == 4 })).unwrap();
        }
        let mut after = None;
        loop {
            after = forget_gone(&connection, 10, after.as_ref(), 3).unwrap();
            if after.is_none() {
                break;
            }
        }
        let left: Vec<i64> = (1..=20).filter(|n| outbox.recorded(1, &key(*n)).unwrap().is_some()).collect();
        assert_eq!(left, (1..=20).filter(|n| n % 2 == 1 || *n > 10 || *n == 4).collect::<Vec<_>>());
    }
}
