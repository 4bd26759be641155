//! What has to be true: of every exchange as far as that is cheap, and in the end of everything.

use std::{collections::BTreeMap, sync::atomic::Ordering::Relaxed};

use rusqlite::{Connection, types::ValueRef};
use sha2::{Digest as _, Sha256};
use whimbrel::store::{conflict::Detail, outbox};
use whimbrel_shared::{
    change::{Change, Edit, Row},
    columns::Column,
    protocol::{conflicts::Kept, sums::SumsResponse},
    sums::TableSums,
    value::Value,
};

use super::{
    app::{Place, token, token_of},
    net::{self, lock},
    schema::{NEWEST, Table, tables},
    world::World,
};

/// Rounds in which everybody has to come to rest, and persons to decide what only they can.
const ROUNDS: usize = 40;
/// A copy of a file sends the new rows that it shares with its original after so long.
const ORIGINAL_MS: i64 = 31 * 24 * 3_600_000;

/// Everybody exchanges until nobody has anything more to say; what waits for a person is decided.
pub fn quiet(world: &World) -> Result<(), String> {
    for file in 0..world.files.len() {
        // What was under way arrives, or never does.
        let late = std::mem::take(&mut lock(&world.shared.sides[file]).late);
        for request in late {
            if world.shared.roll(2) == 0 {
                world.stage.runtime.block_on(world.shared.deliver(&request));
            }
        }
    }
    world.publish_up_to(NEWEST);
    for file in 0..world.files.len() {
        world.migrate(file, NEWEST)?;
    }
    let mut last = None;
    for _ in 0..ROUNDS {
        let mut moved = 0;
        for file in 0..world.files.len() {
            match world.exchange(file, 0) {
                Ok(done) => moved += done.pushed + done.landed,
                Err(error) => {
                    moved += 1;
                    last = Some(error.to_string());
                }
            }
        }
        if moved == 0 && !decide(world)? {
            if !world.cloned.replace(false) {
                return Ok(());
            }
            // Copies have waited long enough for their originals.
            keep(world);
            world.shared.now_ms.fetch_add(ORIGINAL_MS, Relaxed);
        }
    }
    Err(format!("it does not come to rest in {ROUNDS} rounds; the last error was {last:?}; {}", waiting(world)))
}

fn with_app<T>(world: &World, file: usize, work: impl FnOnce(&Connection) -> T) -> T {
    let side = lock(&world.shared.sides[file]);
    work(&side.app.as_ref().expect("it is open").connection)
}

fn texts(connection: &Connection, sql: &str) -> Vec<Vec<String>> {
    let mut statement = connection.prepare(sql).expect("it compiles");
    let columns = statement.column_count();
    let one = |row: &rusqlite::Row<'_>| (0..columns).map(|at| Ok(literal(&value(row.get_ref(at)?)))).collect::<rusqlite::Result<Vec<_>>>();
    statement.query_map([], one).and_then(Iterator::collect).expect("the rows are read")
}

fn waiting(world: &World) -> String {
    let of = |file: usize| {
        with_app(world, file, |connection| {
            let quarantine = texts(connection, "SELECT tab, k1, k2, code, why FROM _whimbrel_quarantine");
            let open = texts(connection, "SELECT tab, k1, k2, kind FROM _whimbrel_conflict WHERE open");
            let unsent = texts(connection, "SELECT tab, k1, k2, deed FROM _whimbrel_outbox");
            format!("f{file}: quarantine {quarantine:?}, open {open:?}, unsent {unsent:?}")
        })
    };
    (0..world.files.len()).map(of).collect::<Vec<_>>().join("\n")
}

fn value(stored: ValueRef<'_>) -> Value {
    match stored {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(n) => Value::Integer(n),
        ValueRef::Real(r) => Value::real(r),
        ValueRef::Text(bytes) => Value::Text(bytes.to_vec()),
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    }
}

/// A value in SQL.
fn literal(value: &Value) -> String {
    match value {
        Value::Null => "NULL".to_owned(),
        Value::Integer(n) => n.to_string(),
        Value::Real(bits) => format!("{:?}", f64::from_bits(*bits)),
        Value::Text(bytes) => format!("'{}'", String::from_utf8_lossy(bytes)),
        Value::Blob(bytes) => format!("x'{}'", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>()),
    }
}

fn table(world: &World, id: i64) -> Option<&'static Table> {
    let newest = world.stage.newest();
    let name = &newest.map.table_by_id(u32::try_from(id).ok()?)?.name;
    newest.tables.iter().find(|t| t.name == name)
}

/// A person decides one thing in each file that waits for one. Whether anything was decided.
fn decide(world: &World) -> Result<bool, String> {
    let (mut any, mut orphans) = (false, Vec::new());
    for file in 0..world.files.len() {
        let (open, quarantine) = with_app(world, file, |connection| {
            let open = texts(
                connection,
                "SELECT c.tab, c.k1, c.k2, c.kind FROM _whimbrel_conflict c WHERE c.open AND EXISTS
                 (SELECT 1 FROM _whimbrel_outbox o WHERE o.tab = c.tab AND o.k1 = c.k1 AND o.k2 = c.k2)",
            );
            (open, texts(connection, "SELECT tab, k1, k2, code, row FROM _whimbrel_quarantine"))
        });
        // A row that waits for its parent waits for somebody else to decide.
        orphans.extend(quarantine.iter().filter(|row| row[3] == "'parent_missing'").map(|row| (file, row.clone())));
        // The next push asks whose it is.
        any |= quarantine.iter().any(|row| row[3] == "'undecided'");
        let quarantine = quarantine.into_iter().filter(|row| !["'parent_missing'", "'undecided'"].contains(&row[3].as_str()));
        let first = open.into_iter().map(|row| (row, true)).chain(quarantine.map(|row| (row, false))).next();
        let Some((row, is_conflict)) = first else { continue };
        let table = table(world, row[0].parse().expect("a number")).ok_or("a table that is not ours")?;
        let at = table.key.iter().zip(&row[1..]).map(|(column, value)| format!("{column} = {value}")).collect::<Vec<_>>().join(" AND ");
        let fresh = || {
            let mut token = lock(&world.shared.token);
            *token += 1;
            1_000_000 + *token
        };
        any = true;
        world.count("decided");
        let sql = match (is_conflict, row[3].trim_matches('\'')) {
            (true, "unique_taken") if world.shared.roll(3) > 0 => {
                let set: Vec<String> = table.unique.iter().map(|column| format!("{column} = {}", fresh())).collect();
                format!("UPDATE {} SET {} WHERE {at}", table.name, set.join(", "))
            }
            (true, _) => format!("DELETE FROM {} WHERE {at}", table.name),
            (false, "unique") => {
                let of = |column: &&str| Ok(format!("{column} = {}", value_of(world, table, column, &row[4])?));
                let holds = table.unique.iter().map(of).collect::<Result<Vec<_>, String>>()?.join(" AND ");
                let set: Vec<String> = table.unique.iter().map(|column| format!("{column} = {}", fresh())).collect();
                format!("UPDATE {} SET {} WHERE {holds}", table.name, set.join(", "))
            }
            (false, "has_children") => {
                let refers = |t: &'static Table| t.parent.filter(|(_, parent)| *parent == table.is).map(|(column, _)| (t.name, column));
                let children = world.stage.newest().tables.iter().filter_map(refers);
                children.map(|(child, column)| format!("DELETE FROM {child} WHERE {column} = {};", row[1])).collect()
            }
            (false, other) => return Err(format!("f{file}: {other} waits: {row:?}")),
        };
        world.shared.run(file, &sql);
    }
    // The parent was never sent and is no more, as where a file went back: somebody makes it anew. A copy sends it yet, once it has
    // waited long enough for its original.
    if let (false, false, Some((file, row))) = (any, world.cloned.get(), orphans.into_iter().next()) {
        let table = table(world, row[0].parse().expect("a number")).ok_or("a table that is not ours")?;
        let (column, parent) = table.parent.ok_or("a table without parents waits for one")?;
        let parent = world.stage.newest().tables.iter().find(|t| t.is == parent).ok_or("a parent that is not ours")?.name;
        let refers_to = value_of(world, table, column, &row[4])?;
        world.count("decided");
        world.shared.run(file, &format!("INSERT OR IGNORE INTO {parent}(id) VALUES ({refers_to})"));
        any = true;
    }
    Ok(any)
}

/// What a row in quarantine has in a column, in SQL.
fn value_of(world: &World, table: &Table, column: &str, row: &str) -> Result<String, String> {
    let waits: Row = serde_json::from_str(row.trim_matches('\'')).map_err(|e| e.to_string())?;
    let id = world.stage.newest().map.table(table.name).and_then(|t| t.column(column)).ok_or("a column that is not ours")?.id;
    let value = waits.values.iter().flatten().find(|(other, _)| *other == id).map(|(_, value)| value);
    Ok(value.map_or_else(|| "NULL".to_owned(), literal))
}

/// No row of a file refers to nothing, at no time: its application would not have let it.
pub fn refers(world: &World, file: usize) {
    let dangling = with_app(world, file, |connection| texts(connection, "PRAGMA foreign_key_check"));
    if !dangling.is_empty() {
        lock(&world.shared.ledger).wrong.push(format!("f{file}: rows refer to nothing: {dangling:?}"));
    }
}

/// Takes down every token that is in a conflict or in the archive of one file now.
pub fn keep_of(world: &World, file: usize) {
    let mut kept = Vec::new();
    with_app(world, file, |connection| {
        for detail in column(connection, "SELECT detail FROM _whimbrel_conflict") {
            let detail: Detail = serde_json::from_str(&detail).expect("a detail");
            kept.extend(detail.columns.iter().flat_map(|c| [c.arrived.as_ref(), c.there.as_ref()]).flatten().filter_map(token_of));
        }
        let mut archive = connection.prepare_cached("SELECT value FROM _whimbrel_archive").expect("it compiles");
        let mut rows = archive.query([]).expect("it runs");
        while let Some(row) = rows.next().expect("it is read") {
            kept.extend(token(row.get_ref(0).expect("a value")));
        }
    });
    lock(&world.shared.ledger).kept.extend(kept);
}

/// Takes down every token that is in a conflict or an archive anywhere now.
pub fn keep(world: &World) {
    (0..world.files.len()).for_each(|file| keep_of(world, file));
    let mut kept = Vec::new();
    let server = Connection::open(world.server()).expect("the store opens");
    for detail in column(&server, "SELECT detail FROM kept_change") {
        let kept_there: Kept = serde_json::from_str(&detail).expect("a detail");
        kept.extend(kept_there.columns.iter().flat_map(|c| [c.arrived.as_ref(), c.there.as_ref()]).flatten().filter_map(token_of));
        if let Some(Change { edit: Edit::Present { cells, .. }, .. }) = &kept_there.change {
            kept.extend(cells.iter().filter_map(|c| token_of(&c.value)));
        }
    }
    lock(&world.shared.ledger).kept.extend(kept);
}

fn column(connection: &Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).expect("it compiles");
    statement.query_map([], |row| row.get(0)).and_then(Iterator::collect).expect("the rows are read")
}

/// Everything that has to be true in the end. Returns the hash of all rows.
pub fn everything(world: &World) -> Result<String, String> {
    keep(world);
    same_everywhere(world)?;
    let rows = as_the_server_says(world)?;
    nothing_is_lost(world)?;
    twice_is_once(world)?;
    Ok(rows)
}

/// A table's rows, without what the server need not have been told: a row that is deleted and made anew by a version that does not
/// know such a column keeps its value where neither was seen (docs/sync.md, "Limits").
fn said(connection: &Connection, table: &Table) -> Vec<Vec<String>> {
    let columns = texts(connection, &format!("SELECT name FROM pragma_table_info('{}')", table.name)).concat();
    let columns = columns.iter().map(|name| name.trim_matches('\'')).filter(|name| !table.unsaid.contains(name)).collect::<Vec<_>>();
    texts(connection, &format!("SELECT {} FROM {} ORDER BY {}", columns.join(", "), table.name, table.key.join(", ")))
}

fn same_everywhere(world: &World) -> Result<(), String> {
    for file in 0..world.files.len() {
        let bad = with_app(world, file, |connection| {
            let mut bad = Vec::new();
            let checked = texts(connection, "PRAGMA integrity_check");
            if checked != [["'ok'"]] {
                bad.push(format!("{checked:?}"));
            }
            let dangling = texts(connection, "PRAGMA foreign_key_check");
            if !dangling.is_empty() {
                bad.push(format!("rows refer to nothing: {dangling:?}"));
            }
            let unsent = outbox::count(connection).expect("it is counted");
            let quarantine = texts(connection, "SELECT tab, k1, code, why FROM _whimbrel_quarantine");
            if unsent > 0 || !quarantine.is_empty() {
                bad.push(format!("{unsent} rows are unsent, in quarantine are {quarantine:?}"));
            }
            bad
        });
        if !bad.is_empty() {
            return Err(format!("f{file}: {}\n{}", bad.join("; "), waiting(world)));
        }
        for table in &world.stage.newest().tables {
            let (first, this) = (with_app(world, 0, |c| said(c, table)), with_app(world, file, |c| said(c, table)));
            if first != this {
                let only = |a: &[Vec<String>], b: &[Vec<String>]| a.iter().filter(|row| !b.contains(row)).cloned().collect::<Vec<_>>();
                return Err(format!("{} differs: f0 alone has {:?}, f{file} alone has {:?}", table.name, only(&first, &this), only(&this, &first)));
            }
        }
    }
    Ok(())
}

/// The sums of the first file, which all others equal.
fn sums(world: &World) -> BTreeMap<u32, TableSums> {
    with_app(world, 0, |connection| {
        let of = |table: &Table| {
            let columns = world.stage.newest().map.table(table.name).expect("it is ours");
            let is_key = |c: &Column| table.key.contains(&c.name.as_str());
            let is_unsaid = |c: &Column| table.unsaid.contains(&c.name.as_str());
            let mut cells: Vec<(u32, &str)> =
                columns.columns.iter().filter(|c| !is_key(c) && !is_unsaid(c)).map(|c| (c.id, c.name.as_str())).collect();
            cells.sort_unstable();
            let mut sums = TableSums::new(columns.id, &cells.iter().map(|(id, _)| *id).collect::<Vec<_>>());
            let names = table.key.iter().copied().chain(cells.iter().map(|(_, name)| *name)).collect::<Vec<_>>().join(", ");
            let mut statement = connection.prepare(&format!("SELECT {names} FROM {}", table.name)).expect("it compiles");
            let mut rows = statement.query([]).expect("it runs");
            while let Some(row) = rows.next().expect("it is read") {
                let values: Vec<Value> = (0..table.key.len() + cells.len()).map(|at| value(row.get_ref(at).expect("a column"))).collect();
                let (key, rest) = values.split_at(table.key.len());
                sums.add(key, cells.iter().map(|(id, _)| *id).zip(rest));
            }
            (columns.id, sums)
        };
        world.stage.newest().tables.iter().map(of).collect()
    })
}

fn ask_sums(world: &World) -> Result<SumsResponse, String> {
    let file = &world.files[0];
    let request = net::get(format!("/api/sync/sums?client_id={}&schema={NEWEST}", file.client_id.get()), &file.token, "application/json");
    let answer = world.stage.runtime.block_on(world.shared.deliver(&request));
    serde_json::from_slice(&answer.body).map_err(|e| format!("{e}: {}", String::from_utf8_lossy(&answer.body)))
}

fn as_the_server_says(world: &World) -> Result<String, String> {
    let ours = sums(world);
    for mut theirs in ask_sums(world)?.tables {
        let held = ours.get(&theirs.table).map(|t| t.columns.as_slice()).unwrap_or_default();
        theirs.columns.retain(|(id, _)| held.iter().any(|(other, _)| other == id));
        if ours.get(&theirs.table) != Some(&theirs) {
            let name = world.stage.newest().map.table_by_id(theirs.table).map_or("?", |t| t.name.as_str());
            return Err(format!("the server has other rows of {name} than the files"));
        }
    }
    let mut hash = Sha256::new();
    hash.update(format!("{ours:?}"));
    Ok(format!("{:x?}", hash.finalize()))
}

fn nothing_is_lost(world: &World) -> Result<(), String> {
    let ledger = lock(&world.shared.ledger);
    let current = lock(&world.shared.sides[0]).app.as_ref().expect("it is open").tokens();
    let mut lost = Vec::new();
    for (token, (file, sql)) in &ledger.written {
        let accounted = current.contains(token)
            || ledger.superseded.contains(token)
            || ledger.kept.contains(token)
            || ledger.given_up.contains(token)
            || ledger.gone.contains(token);
        if !accounted {
            lost.push(format!("t{token} of f{file}, {}: {sql}", if ledger.taken.contains(token) { "which the server took" } else { "never taken" }));
        }
    }
    for (token, at) in &ledger.contested {
        if !ledger.kept.contains(token) && !current.contains(token) && !ledger.superseded.contains(token) {
            lost.push(format!("t{token} was overwritten unseen in {at}, and no conflict says so"));
        }
    }
    let unsaid = |place: &Place| tables(NEWEST).iter().any(|t| t.is == place.0 && t.unsaid.contains(&place.1));
    let there = lock(&world.shared.sides[0]).places();
    let back = there.intersection(&ledger.removed).filter(|place| !unsaid(place) && !ledger.kept.contains(&place.3));
    lost.extend(back.map(|(table, column, key, token)| format!("that t{token} of {table}.{column} {key} was taken out")));
    if lost.is_empty() { Ok(()) } else { Err(format!("lost: {}", lost.join("; "))) }
}

/// Everything that was ever sent, once more.
fn twice_is_once(world: &World) -> Result<(), String> {
    let before = ask_sums(world)?;
    let pushes = std::mem::take(&mut *lock(&world.shared.pushes));
    for request in pushes.iter().rev() {
        world.stage.runtime.block_on(world.shared.deliver(request));
    }
    if ask_sums(world)?.tables != before.tables { Err("old pushes changed something".to_owned()) } else { Ok(()) }
}
