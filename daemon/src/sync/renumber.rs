//! A new row gets another key, because the one that the file gave it is another row's (`keys = "renumber"`). The rows here
//! that refer to it follow; those of the other row do not.

use rusqlite::{Connection, params_from_iter};
use whimbrel_shared::{sql::quote, value::Value};

use super::{
    error::{SyncError, sqlite},
    fold::Boot,
    foreign::ForeignKey,
    land::Lander,
    shape::Captured,
    tables::Tables,
    values::{Bound, canonical, told},
};
use crate::store::{
    conflict::{self, Conflict, Detail, Kind},
    exchange::Exchange,
    key::Key,
    outbox::{Deed, Edit, Entry, Outbox, Sent, Stamp},
};

/// Rows that follow one row, at most: what refers to it, what refers to that, and so on.
const MOST_FOLLOWERS: usize = 100_000;

/// Whether rows of the table can get another key: it is one number.
pub(super) fn can(shape: &Captured) -> bool {
    shape.row_id
}

/// Gives the row a free key, lands the row that has its old one, and says so in a conflict that is decided. `false`: there
/// is no such unsent row any more, or no free key; then the conflict is open. In the caller's write transaction, with the
/// journal folded and foreign keys off.
pub(super) fn renumber(
    connection: &Connection,
    tables: &Tables,
    table: u32,
    key: &Key,
    boot: &Boot,
    now_ms: i64,
    stands: &mut Exchange,
) -> Result<bool, SyncError> {
    let Some(shape) = tables.get(table).and_then(|t| t.shape.as_ref()) else { return Ok(false) };
    let Some(entry) = new_row(connection, table, key)? else { return Ok(false) };
    let free = to_free_key(connection, tables, shape, key, boot, now_ms, stands)?;
    let detail = Detail { key: told(key), decided: free.map(has_now), ..Detail::default() };
    let seq = entry.seq();
    conflict::put(connection, &Conflict { id: 0, table, key: key.clone(), kind: Kind::KeyTaken, open: free.is_none(), seq, at_ms: now_ms, detail })?;
    Ok(free.is_some())
}

/// What is said of a row that got another key.
pub(super) fn has_now(key: i64) -> String {
    format!("it has the key {key} now")
}

/// What waits of a row, if the server never had it.
fn new_row(connection: &Connection, table: u32, key: &Key) -> Result<Option<Entry>, SyncError> {
    Ok(Outbox::open(connection)?.entry(table, key)?.filter(|e| e.deed == Deed::Insert))
}

/// Gives an unsent new row a free key, and lands the row that has its old one. Returns the key; none where there is no such
/// row, or no free key: then nothing was done.
pub(super) fn to_free_key(
    connection: &Connection,
    tables: &Tables,
    shape: &Captured,
    key: &Key,
    boot: &Boot,
    now_ms: i64,
    stands: &mut Exchange,
) -> Result<Option<i64>, SyncError> {
    if new_row(connection, shape.id, key)?.is_none() {
        return Ok(None);
    }
    let Some(free) = free_key(connection, shape)? else { return Ok(None) };
    let mut lander = Lander::open(connection, tables, now_ms)?;
    let mut left = MOST_FOLLOWERS;
    rekey(&mut lander, connection, tables, shape, key, &[Value::Integer(free)], &mut left)?;
    lander.land_waiting(shape.id, key)?;
    lander.finish(boot, whimbrel_shared::hlc::Clock::ZERO, stands)?;
    tracing::info!(table = %shape.name, from = ?key, to = free, "a new row got another key: its own is another row's");
    Ok(Some(free))
}

/// A number that no row of the table has here, waits with, or had at the server; none where the largest is taken.
fn free_key(connection: &Connection, shape: &Captured) -> Result<Option<i64>, SyncError> {
    let doing = "looking for a free key";
    let column = shape.key.first().map_or("", |k| k.name.as_str());
    let sql = format!(
        "SELECT max(coalesce((SELECT max({column}) FROM main.{table}), 0),
             coalesce((SELECT max(k1) FROM main._whimbrel_row WHERE tab = ?1 AND typeof(k1) = 'integer'), 0),
             coalesce((SELECT max(k1) FROM main._whimbrel_quarantine WHERE tab = ?1 AND typeof(k1) = 'integer'), 0))",
        column = quote(column),
        table = quote(&shape.name)
    );
    let largest: i64 = connection.query_row(&sql, [shape.id], |row| row.get(0)).map_err(sqlite(doing))?;
    Ok(largest.checked_add(1))
}

/// Gives a row another key, and those of ours that refer to it with it.
fn rekey<'c, 't>(
    lander: &mut Lander<'c, 't>,
    connection: &'c Connection,
    tables: &'t Tables,
    shape: &'t Captured,
    old: &Key,
    new: &[Value],
    left: &mut usize,
) -> Result<(), SyncError> {
    *left = left.checked_sub(1).ok_or(SyncError::TooManyFollow { table: shape.name.clone(), most: MOST_FOLLOWERS })?;
    lander.with_echo(shape)?;
    if let Err(refused) = lander.writer(shape).update(old, Some(new), &[])? {
        return Err(SyncError::Unreadable { table: shape.name.clone(), why: refused.why });
    }
    let entry = lander.outbox.entry(shape.id, old)?;
    lander.outbox.put(shape.id, old, None)?;
    let key =
        canonical(new, &shape.collations()).ok_or_else(|| SyncError::Unreadable { table: shape.name.clone(), why: "a key has a NULL".to_owned() })?;
    if let Some(entry) = entry {
        // It is new under this key: the server never heard of it.
        let edits = entry.edits.into_iter().map(|e| Edit { base: None, sent: Sent::Never, ..e }).collect();
        lander.outbox.put(shape.id, &key, Some(&Entry { deed: Deed::Insert, edits }))?;
    }
    let values = |at: &[Value], column: &str| shape.key.iter().position(|k| k.name.eq_ignore_ascii_case(column)).and_then(|n| at.get(n).cloned());
    let old_told = told(old);
    for foreign in tables.foreign.iter().filter(|f| f.parent.0 == Some(shape.id)) {
        let pairs = |at: &[Value]| foreign.refers_to.iter().map(|column| values(at, column)).collect::<Option<Vec<_>>>();
        // What refers to other columns than the key does not change.
        let (Some(was), Some(is)) = (pairs(&old_told), pairs(new)) else { continue };
        if was == is {
            continue;
        }
        match foreign.child.0.and_then(|id| tables.get(id)).and_then(|t| t.shape.as_ref()) {
            Some(child) => {
                for row in referring(connection, child, foreign, &was)? {
                    follow(lander, connection, tables, child, foreign, &row, &is, left)?;
                }
            }
            // Nobody else has rows of it.
            None => move_all(connection, foreign, &was, &is)?,
        }
    }
    Ok(())
}

/// A row of the child follows. What it refers to was said here, since no row of the server lands that refers to one that was made
/// here; where that was sent already, it is an edit.
fn follow<'c, 't>(
    lander: &mut Lander<'c, 't>,
    connection: &'c Connection,
    tables: &'t Tables,
    child: &'t Captured,
    foreign: &ForeignKey,
    row: &[Value],
    is: &[Value],
    left: &mut usize,
) -> Result<(), SyncError> {
    let Some(key) = canonical(row, &child.collations()) else { return Ok(()) };
    let recorded = lander.outbox.recorded(child.id, &key)?;
    let column = |name: &String| child.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)).map(|c| c.id);
    let mut new = row.to_vec();
    let mut cells = Vec::new();
    for (name, value) in foreign.columns.iter().zip(is) {
        match child.key.iter().position(|k| k.name.eq_ignore_ascii_case(name)) {
            Some(at) => new[at] = value.clone(),
            None => cells.extend(column(name).map(|id| (id, value))),
        }
    }
    if !cells.is_empty() {
        lander.with_echo(child)?;
        if let Err(refused) = lander.writer(child).update(&key, None, &cells)? {
            return Err(SyncError::Unreadable { table: child.name.clone(), why: refused.why });
        }
        let columns: Vec<u32> = cells.iter().map(|(id, _)| *id).collect();
        let known = recorded.as_ref().filter(|r| !r.gone);
        let edit = || Entry { deed: Deed::Edit, edits: Vec::new() };
        if let Some(mut entry) = lander.outbox.entry(child.id, &key)?.or_else(|| known.map(|_| edit())) {
            written_after(&mut entry, &columns, known.map(|r| r.version), lander.stamp()?);
            lander.outbox.put(child.id, &key, Some(&entry))?;
        }
    }
    if new != row && recorded.is_none() { rekey(lander, connection, tables, child, &key, &new, left) } else { Ok(()) }
}

/// Columns were written anew, after whatever was sent of them.
fn written_after(entry: &mut Entry, columns: &[u32], known: Option<u64>, stamp: Stamp) {
    for id in columns {
        let (base, sent) = match entry.edits.iter_mut().find(|e| e.columns.contains(id)) {
            // Nobody has the value that it had.
            Some(edit) if edit.sent == Sent::Never => continue,
            Some(edit) => {
                edit.columns.retain(|other| other != id);
                (edit.base, Sent::EditedSince)
            }
            None => (known, Sent::Never),
        };
        entry.edits.push(Edit { base, stamp, sent, derived: false, columns: vec![*id] });
    }
    entry.edits.retain(|edit| !edit.columns.is_empty());
}

/// Keys of the child's rows that refer to these values.
fn referring(connection: &Connection, child: &Captured, foreign: &ForeignKey, was: &[Value]) -> Result<Vec<Vec<Value>>, SyncError> {
    let doing = "looking for rows that refer to one";
    let keys = child.key.iter().map(|k| quote(&k.name)).collect::<Vec<_>>().join(", ");
    let conditions = foreign.columns.iter().enumerate().map(|(n, c)| format!("{} = ?{}", quote(c), n + 1)).collect::<Vec<_>>().join(" AND ");
    let sql = format!("SELECT {keys} FROM main.{} WHERE {conditions}", quote(&child.name));
    let mut statement = connection.prepare_cached(&sql).map_err(sqlite(doing))?;
    let mut rows = statement.query(params_from_iter(was.iter().map(Bound))).map_err(sqlite(doing))?;
    let mut found = Vec::new();
    while let Some(row) = rows.next().map_err(sqlite(doing))? {
        if let Some(key) = Key::read(row, 0, child.key.len()).map_err(sqlite(doing))? {
            found.push(told(&key));
        }
    }
    Ok(found)
}

fn move_all(connection: &Connection, foreign: &ForeignKey, was: &[Value], is: &[Value]) -> Result<(), SyncError> {
    let count = foreign.columns.len();
    let set = foreign.columns.iter().enumerate().map(|(n, c)| format!("{} = ?{}", quote(c), count + n + 1)).collect::<Vec<_>>().join(", ");
    let conditions = foreign.columns.iter().enumerate().map(|(n, c)| format!("{} = ?{}", quote(c), n + 1)).collect::<Vec<_>>().join(" AND ");
    let sql = format!("UPDATE main.{} SET {set} WHERE {conditions}", quote(&foreign.child.1));
    connection.execute(&sql, params_from_iter(was.iter().chain(is).map(Bound))).map(|_| ()).map_err(sqlite("moving rows that refer to one"))
}
