//! Our own tables while a migration gives rows other keys, or takes tables away: entries of one table one after the other,
//! the map from old keys to new ones, and what is said of the walk that follows. Every function runs inside the caller's
//! transaction. Keys are canonical.

use rusqlite::{Connection, OptionalExtension, params};

use super::{StoreError, at, journal::key_parameters, key::Key};

/// Old keys and the new ones, while a migration runs. It is made and dropped in the migration's own transaction.
const KEYS: &str = "CREATE TABLE main._whimbrel_keys (way INTEGER NOT NULL, o1 NOT NULL, o2 NOT NULL, o3 NOT NULL, o4 NOT NULL,
    k1 NOT NULL, k2 NOT NULL, k3 NOT NULL, k4 NOT NULL, PRIMARY KEY (way, o1, o2, o3, o4)) WITHOUT ROWID";

/// Tables of ours whose rows belong to a row of the application's.
const KEYED: [&str; 4] = ["_whimbrel_row", "_whimbrel_outbox", "_whimbrel_quarantine", "_whimbrel_conflict"];

/// Makes the map from old keys to new ones, empty.
pub fn make_keys(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch(KEYS).map_err(at("making the map of keys"))
}

/// Takes the map away.
pub fn drop_keys(connection: &Connection) -> Result<(), StoreError> {
    connection.execute_batch("DROP TABLE main._whimbrel_keys").map_err(at("dropping the map of keys"))
}

/// Notes what an old key becomes on one way. Of two old keys that become one, both are kept; of two new ones, the later.
pub fn put_key(connection: &Connection, way: u32, old: &Key, new: &Key) -> Result<(), StoreError> {
    let [way, o1, o2, o3, o4] = key_parameters(&way, old);
    let [_, k1, k2, k3, k4] = key_parameters(&0, new);
    connection
        .prepare_cached(
            "INSERT OR REPLACE INTO main._whimbrel_keys (way, o1, o2, o3, o4, k1, k2, k3, k4) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        )
        .and_then(|mut s| s.execute(params![way, o1, o2, o3, o4, k1, k2, k3, k4]))
        .map(|_| ())
        .map_err(at("noting a new key"))
}

/// What an old key becomes on one way, where that is known. `columns`: how many the new key has.
pub fn new_key(connection: &Connection, way: u32, old: &Key, columns: usize) -> Result<Option<Key>, StoreError> {
    connection
        .prepare_cached("SELECT k1, k2, k3, k4 FROM main._whimbrel_keys WHERE way = ?1 AND o1 = ?2 AND o2 = ?3 AND o3 = ?4 AND o4 = ?5")
        .and_then(|mut s| s.query_row(&key_parameters(&way, old)[..], |row| Key::read(row, 0, columns)).optional())
        .map(Option::flatten)
        .map_err(at("looking for a new key"))
}

/// Gives what is known and what waits of a table's rows their new keys. What has none goes: the caller has looked at it
/// before. Conflicts and rows in quarantine whose new key is not known keep the old one.
pub fn move_keys(connection: &Connection, table: u32, way: u32) -> Result<(), StoreError> {
    let doing = "giving rows their new keys";
    // Aside first, as an old key may be another row's new one. No id of a table is negative.
    for (ours, columns) in [("_whimbrel_row", "version, hashes"), ("_whimbrel_outbox", "seq, deed, edits")] {
        connection
            .execute(&format!("UPDATE main.{ours} SET tab = -tab WHERE tab = ?1"), [table])
            .and_then(|_| {
                // Of two that become one, the one that comes first is the row that is there.
                connection.execute(
                    &format!(
                        "INSERT OR IGNORE INTO main.{ours} (tab, k1, k2, k3, k4, {columns})
                         SELECT ?1, m.k1, m.k2, m.k3, m.k4, {columns} FROM main.{ours} AS r
                         JOIN main._whimbrel_keys AS m ON m.way = ?2 AND m.o1 = r.k1 AND m.o2 = r.k2 AND m.o3 = r.k3 AND m.o4 = r.k4
                         WHERE r.tab = -?1"
                    ),
                    [table, way],
                )
            })
            .and_then(|_| connection.execute(&format!("DELETE FROM main.{ours} WHERE tab = -?1"), [table]))
            .map_err(at(doing))?;
    }
    let others = "UPDATE main._whimbrel_conflict AS c SET (k1, k2, k3, k4) = (m.k1, m.k2, m.k3, m.k4) FROM main._whimbrel_keys AS m
         WHERE c.tab = ?1 AND m.way = ?2 AND m.o1 = c.k1 AND m.o2 = c.k2 AND m.o3 = c.k3 AND m.o4 = c.k4";
    connection.execute(others, [table, way]).map_err(at(doing))?;
    // A sweep that is under way stands at a key that nobody knows any more.
    connection
        .execute("UPDATE main._whimbrel_sweep SET phase = 1, k1 = NULL, k2 = NULL, k3 = NULL, k4 = NULL WHERE tab = ?1", [table])
        .map(|_| ())
        .map_err(at(doing))
}

/// Of a part of each row that moves into another table: what the server has of the row, it has of its part too. No hash of
/// a value is known there, as it has the value that the migration gave it; the first byte says what kind of record it is.
pub fn record_parts(connection: &Connection, from: u32, into: u32, way: u32) -> Result<(), StoreError> {
    connection
        .execute(
            "INSERT OR IGNORE INTO main._whimbrel_row (tab, k1, k2, k3, k4, version, hashes)
             SELECT ?2, m.k1, m.k2, m.k3, m.k4, r.version, substr(r.hashes, 1, 1) FROM main._whimbrel_row AS r
             JOIN main._whimbrel_keys AS m ON m.way = ?3 AND m.o1 = r.k1 AND m.o2 = r.k2 AND m.o3 = r.k3 AND m.o4 = r.k4 WHERE r.tab = ?1",
            [from, into, way],
        )
        .map(|_| ())
        .map_err(at("noting what the server has of moved rows"))
}

/// Rows that wait to be sent, of one table of `columns` key columns, after one of them; at most `most`.
pub fn waiting_after(connection: &Connection, table: u32, after: Option<&Key>, columns: usize, most: usize) -> Result<Vec<Key>, StoreError> {
    keys_after(connection, "_whimbrel_outbox", table, after, columns, most)
}

/// Rows that the server is known to have, in the same way.
pub fn recorded_after(connection: &Connection, table: u32, after: Option<&Key>, columns: usize, most: usize) -> Result<Vec<Key>, StoreError> {
    keys_after(connection, "_whimbrel_row", table, after, columns, most)
}

fn keys_after(connection: &Connection, ours: &str, table: u32, after: Option<&Key>, columns: usize, most: usize) -> Result<Vec<Key>, StoreError> {
    let doing = "reading the keys of rows";
    let range = if after.is_some() { "AND (k1, k2, k3, k4) > (?3, ?4, ?5, ?6)" } else { "" };
    let sql = format!("SELECT k1, k2, k3, k4 FROM main.{ours} WHERE tab = ?1 {range} ORDER BY k1, k2, k3, k4 LIMIT ?2");
    let mut statement = connection.prepare_cached(&sql).map_err(at(doing))?;
    let most = most as i64;
    let mut rows = match after {
        Some(key) => statement.query(params![table, most, key.column(0), key.column(1), key.column(2), key.column(3)]),
        None => statement.query(params![table, most]),
    }
    .map_err(at(doing))?;
    let mut keys = Vec::new();
    while let Some(row) = rows.next().map_err(at(doing))? {
        keys.extend(Key::read(row, 0, columns).map_err(at(doing))?);
    }
    Ok(keys)
}

/// Rows of a table that are in quarantine: key and row, as JSON. What lies there is little.
pub fn quarantined(connection: &Connection, table: u32, columns: usize) -> Result<Vec<(Key, String)>, StoreError> {
    let doing = "reading the quarantine";
    let mut statement = connection
        .prepare_cached("SELECT k1, k2, k3, k4, row FROM main._whimbrel_quarantine WHERE tab = ?1 ORDER BY k1, k2, k3, k4")
        .map_err(at(doing))?;
    let rows = statement.query_map([table], |row| Ok(Key::read(row, 0, columns)?.map(|key| (key, row.get(4))))).map_err(at(doing))?;
    let found: Vec<_> = rows.collect::<rusqlite::Result<_>>().map_err(at(doing))?;
    found.into_iter().flatten().map(|(key, row)| row.map(|row| (key, row)).map_err(at(doing))).collect()
}

/// Gives rows in quarantine their new keys: the old one, the new one, and the row with it.
pub fn move_quarantined(connection: &Connection, table: u32, moved: &[(Key, Key, String)]) -> Result<(), StoreError> {
    let doing = "giving quarantined rows their new keys";
    connection.execute("UPDATE main._whimbrel_quarantine SET tab = -tab WHERE tab = ?1", [table]).map_err(at(doing))?;
    for (old, new, row) in moved {
        let [table, o1, o2, o3, o4] = key_parameters(&table, old);
        let [_, k1, k2, k3, k4] = key_parameters(&0, new);
        connection
            .prepare_cached(
                "UPDATE OR REPLACE main._whimbrel_quarantine SET tab = ?1, k1 = ?6, k2 = ?7, k3 = ?8, k4 = ?9, row = ?10
                 WHERE tab = -?1 AND k1 = ?2 AND k2 = ?3 AND k3 = ?4 AND k4 = ?5",
            )
            .and_then(|mut s| s.execute(params![table, o1, o2, o3, o4, k1, k2, k3, k4, row]))
            .map_err(at(doing))?;
    }
    connection.execute("UPDATE OR IGNORE main._whimbrel_quarantine SET tab = ?1 WHERE tab = -?1", [table]).map(|_| ()).map_err(at(doing))
}

/// Forgets all that is known of a table's rows, and what waits of them.
pub fn forget_table(connection: &Connection, table: u32) -> Result<(), StoreError> {
    for ours in KEYED {
        connection.execute(&format!("DELETE FROM main.{ours} WHERE tab = ?1"), [table]).map_err(at("forgetting the rows of a table"))?;
    }
    super::journal::end_sweep(connection, table)
}

/// The file goes from one version to another: what the new one knows and the old one did not has to be walked for, once.
/// Where a walk is under way, it begins anew, for all that it was for; where the file goes down meanwhile, everything is.
pub fn walk(connection: &Connection, from: u32, up: bool) -> Result<(), StoreError> {
    connection
        .execute(
            "UPDATE main._whimbrel_exchange SET walked = 0, until = CASE WHEN since IS NULL OR ?2 THEN cursor END,
             cursor = CASE WHEN since IS NULL OR ?2 THEN cursor ELSE 0 END, tell_again = tell_again OR NOT (since IS NULL OR ?2),
             since = CASE WHEN ?2 THEN min(coalesce(since, ?1), ?1) WHEN since IS NULL THEN ?1 END
             WHERE series IS NOT NULL",
            params![from, up],
        )
        .map(|_| ())
        .map_err(at("noting that a walk is needed"))
}
