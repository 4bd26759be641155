//! `PRAGMA user_version`: a number that an application counts up itself, alone or beside Room's table.

use rusqlite::Connection;

use super::{
    super::past::{Applied, Key, Past, Tool},
    Source,
};

/// Room: the number, and a hash of the schema that Room expects.
pub(super) fn room(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Room);
    past.applied.extend(applied(source.connection)?);
    for [hash] in source.rows(["identity_hash"], "WHERE id = 42")? {
        past.notes.push(format!("Room expects the schema with identity hash {}", hash.unwrap_or_default()));
    }
    Ok(past)
}

/// The number alone; none where it is 0.
pub(super) fn user_version(connection: &Connection) -> rusqlite::Result<Option<Past>> {
    let applied = applied(connection)?;
    Ok(applied.map(|applied| Past { applied: vec![applied], ..Past::new(Tool::UserVersion, "PRAGMA user_version") }))
}

fn applied(connection: &Connection) -> rusqlite::Result<Option<Applied>> {
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    Ok(u32::try_from(version).ok().filter(|v| *v > 0).map(|version| {
        // The migration with this number; else the one at this place, as rusqlite_migration counts.
        Applied::up_to(version.to_string(), vec![Key::Numbers(vec![version.into()]), Key::Place(version)])
    }))
}
