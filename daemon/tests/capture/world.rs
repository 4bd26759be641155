//! One seed: an application, its file, our capture, and the other side.

use fastrand::Rng;
use rusqlite::{Connection, limits::Limit};
use whimbrel::{
    store::{journal, outbox},
    sync::{
        capture::{self, Wanted},
        fold::{Boot, Origin, fold},
        shape::Mode,
        sweep,
    },
};

use crate::{
    mutation::Mutation,
    replica::{Replica, truth},
    schema::{Schema, schema},
    statements::statements,
};

/// Statements, or groups of them, in one seed.
const STATEMENTS: usize = 60;
const NOW_MS: i64 = 1_700_000_000_000;

/// Runs one seed; the error says how the copy differs from the application's tables.
pub(crate) fn run(seed: u64, mutation: Mutation, show: bool) -> Result<(), String> {
    let mut rng = Rng::with_seed(seed);
    let schema = schema(&mut rng);
    let connection = Connection::open_in_memory().unwrap();
    connection.set_prepared_statement_cache_capacity(256);
    let say = |line: &str| {
        if show {
            println!("{line};");
        }
    };
    // A trigger that fires itself ends in an error either way; sooner is quicker.
    connection.set_limit(Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 12).unwrap();
    for (pragma, on) in [("foreign_keys", rng.bool()), ("recursive_triggers", rng.bool())] {
        connection.pragma_update(None, pragma, on).unwrap();
        say(&format!("PRAGMA {pragma} = {on}"));
    }
    for sql in &schema.sql {
        say(sql);
        connection.execute_batch(sql).map_err(|e| format!("{sql}: {e}"))?;
    }
    // What was there before is found by a sweep.
    for _ in 0..rng.usize(..8) {
        app(&connection, &mut rng, &schema, &say)?;
    }
    journal::make(&connection).unwrap();
    let wanted: Vec<_> = schema.tables.iter().map(|t| Wanted { table: t.id, mode: t.mode }).collect();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let judged = capture::install(&connection, &schema.map(), &wanted, NOW_MS).unwrap();
    connection.execute_batch("COMMIT").unwrap();
    if judged.len() != schema.tables.len() || judged.iter().any(|j| j.captured.is_none()) {
        return Err(format!("not captured: {judged:?}"));
    }
    let tables = capture::captured(&connection).unwrap();
    mutation.apply(&connection);
    let mut replica = Replica::default();
    for _ in 0..STATEMENTS {
        app(&connection, &mut rng, &schema, &say)?;
        if rng.u8(..4) == 0 {
            folded(&connection, &mut rng, &say)?;
            if rng.bool() {
                replica.send(&connection, &tables, &mut || rng.u8(..3) > 0);
            }
            while !replica.on_the_way.is_empty() && rng.u8(..3) > 0 {
                let at = rng.usize(..replica.on_the_way.len());
                replica.arrive(&connection, at);
            }
        }
    }
    settle(&connection, &mut rng, &schema, &mut replica, &say)?;

    let truth = truth(&connection, &tables);
    if replica.rows != truth {
        let missing: Vec<_> = truth.iter().filter(|(key, row)| replica.rows.get(*key) != Some(row)).take(2).collect();
        let extra: Vec<_> = replica.rows.iter().filter(|(key, _)| !truth.contains_key(*key)).take(2).collect();
        let has: Vec<_> = missing.iter().map(|(key, _)| replica.rows.get(*key)).collect();
        return Err(format!("diverged: the application has {missing:?}, the copy has {has:?}, and it has what is not there: {extra:?}"));
    }
    Ok(())
}

/// Statements of the application. They may fail, but only for reasons of its own.
fn app(connection: &Connection, rng: &mut Rng, schema: &Schema, say: &dyn Fn(&str)) -> Result<(), String> {
    for sql in statements(rng, schema) {
        let alone = sql.starts_with("SAVEPOINT") || sql.starts_with("BEGIN");
        if alone && !connection.is_autocommit() && sql == "BEGIN" {
            continue;
        }
        match connection.execute_batch(&sql) {
            Ok(()) => say(&sql),
            Err(error) => {
                let code = error.sqlite_error().map(|e| e.extended_code & 0xff);
                let text = error.to_string();
                let own = matches!(code, Some(rusqlite::ffi::SQLITE_CONSTRAINT | rusqlite::ffi::SQLITE_MISMATCH))
                    || ["too many levels", "nested too deep", "no such savepoint", "no transaction is active", "foreign key mismatch"]
                        .iter()
                        .any(|w| text.contains(w));
                if !own || text.contains("_whimbrel_") {
                    return Err(format!("{sql}: {text}"));
                }
                say(&format!("-- {text}\n{sql}"));
            }
        }
    }
    // A transaction that cannot be committed (a deferred foreign key) ends like this.
    if !connection.is_autocommit() {
        say("ROLLBACK");
        connection.execute_batch("ROLLBACK").unwrap();
    }
    Ok(())
}

fn folded(connection: &Connection, rng: &mut Rng, say: &dyn Fn(&str)) -> Result<(), String> {
    say("-- fold");
    let boot = Boot { id: "a boot".to_owned(), began_ms: NOW_MS };
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let most = (rng.u8(..3) == 0).then(|| rng.u64(1..20));
    let done = fold(connection, &boot, Origin::App, NOW_MS, most).map_err(|e| e.to_string())?;
    if !done.unreadable.is_empty() {
        return Err(format!("{done:?}"));
    }
    if rng.bool() {
        sweep::sweep(connection, rng.usize(1..20)).map_err(|e| e.to_string())?;
    }
    connection.execute_batch("COMMIT").unwrap();
    Ok(())
}

/// Everything is folded, swept, sent and acknowledged.
fn settle(connection: &Connection, rng: &mut Rng, schema: &Schema, replica: &mut Replica, say: &dyn Fn(&str)) -> Result<(), String> {
    let tables = capture::captured(connection).unwrap();
    // Indexes that have no probe only in key-only mode.
    let unprobed = tables.iter().filter(|t| !t.unprobed.is_empty()).all(|t| t.mode == Mode::KeyOnly);
    if !unprobed || schema.tables.iter().zip(&tables).any(|(made, read)| made.row_id != read.row_id) {
        return Err(format!("read wrongly: {tables:?}"));
    }
    sweep::mark_routine(connection, NOW_MS).unwrap();
    for _ in 0..1_000 {
        folded(connection, rng, say)?;
        connection.execute_batch("BEGIN IMMEDIATE").unwrap();
        let swept = sweep::sweep(connection, 30).map_err(|e| e.to_string())?;
        connection.execute_batch("COMMIT").unwrap();
        while !replica.on_the_way.is_empty() {
            replica.arrive(connection, 0);
        }
        let sent = replica.send(connection, &tables, &mut || true);
        if sent == 0 && !swept.more && journal::extent(connection).unwrap().is_folded() {
            let left = outbox::count(connection).unwrap();
            return if left == 0 { Ok(()) } else { Err(format!("diverged: {left} rows cannot be sent")) };
        }
    }
    Err("it does not come to rest".to_owned())
}
