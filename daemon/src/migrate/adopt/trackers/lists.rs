//! Trackers that are plain lists: what stands in them is in place.

use super::{
    super::past::{Applied, Key, Past, Tool},
    Source, stem,
};

/// `version`, `name`: `V{version}__{name}`, or `U…` of a migration out of line.
pub(super) fn refinery(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Refinery);
    for [version, name] in source.rows(["version", "name"], "ORDER BY version")? {
        let (version, name) = (version.unwrap_or_default(), name.unwrap_or_default());
        let keys = vec![Key::Name(format!("V{version}__{name}")), Key::Name(format!("U{version}__{name}")), Key::of_version(&version)];
        past.applied.push(Applied::one(format!("V{version}__{name}"), keys));
    }
    Ok(past)
}

/// `version`: the stamp of the directory without its dashes.
pub(super) fn diesel(source: &Source<'_>) -> rusqlite::Result<Past> {
    versions(source, Tool::Diesel)
}

/// dbmate and Rails: `version`, the digits in front of the file's name.
pub(super) fn versions(source: &Source<'_>, tool: Tool) -> rusqlite::Result<Past> {
    let mut past = source.past(tool);
    for [version] in source.rows(["version"], "ORDER BY version")? {
        let version = version.unwrap_or_default();
        past.applied.push(Applied::one(version.clone(), vec![Key::of_version(&version)]));
    }
    Ok(past)
}

/// `id`: the file's name.
pub(super) fn sql_migrate(source: &Source<'_>) -> rusqlite::Result<Past> {
    named(source, Tool::SqlMigrate, "id", "ORDER BY applied_at, id")
}

/// `identifier`: a name.
pub(super) fn grdb(source: &Source<'_>) -> rusqlite::Result<Past> {
    named(source, Tool::Grdb, "identifier", "ORDER BY rowid")
}

/// `version_num`: only the heads. The chain has to name revisions in its names: `0002_ae1027a6acf_add_tags`.
pub(super) fn alembic(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Alembic);
    for [head] in source.rows(["version_num"], "ORDER BY version_num")? {
        let head = head.unwrap_or_default();
        past.applied.push(Applied::up_to(head.clone(), vec![Key::Word(head.clone()), Key::of_version(&head)]));
    }
    Ok(past)
}

/// `app`, `name`. An application's own apps may stand in the chain without their app's name; Django's do not.
pub(super) fn django(source: &Source<'_>) -> rusqlite::Result<Past> {
    const CONTRIB: [&str; 9] = ["admin", "auth", "contenttypes", "flatpages", "gis", "messages", "redirects", "sessions", "sites"];
    let mut past = source.past(Tool::Django);
    for [app, name] in source.rows(["app", "name"], "ORDER BY id")? {
        let (app, name) = (app.unwrap_or_default(), name.unwrap_or_default());
        let mut keys = vec![Key::Name(format!("{app}_{name}"))];
        if !CONTRIB.contains(&app.as_str()) {
            keys.push(Key::Name(name.clone()));
        }
        past.applied.push(Applied { group: Some(app.clone()), ..Applied::one(format!("{app}.{name}"), keys) });
    }
    Ok(past)
}

/// `timestamp`, `name`: `Init1700000000000`.
pub(super) fn typeorm(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::TypeOrm);
    for [timestamp, name] in source.rows(["timestamp", "name"], "ORDER BY id")? {
        let name = name.unwrap_or_default();
        past.applied.push(Applied::one(name.clone(), vec![Key::Name(name), Key::of_version(&timestamp.unwrap_or_default())]));
    }
    Ok(past)
}

/// `hash`, `created_at`, and later `name`. Without a name only the order is left: drizzle runs what is newer than the last,
/// so the first row is the first migration. (`id` is NULL: `SERIAL PRIMARY KEY` is no rowid in SQLite.)
pub(super) fn drizzle(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Drizzle);
    let named = source.has_column("name");
    let rows = source.rows(["created_at", if named { "name" } else { "hash" }], "ORDER BY created_at, rowid")?;
    for (place, [created, said]) in (1..).zip(rows) {
        let said = said.unwrap_or_default();
        let keys = if named && !said.is_empty() { vec![Key::Name(said.clone())] } else { vec![Key::Place(place)] };
        let id = if named { said } else { format!("number {place} of {}", created.unwrap_or_default()) };
        past.applied.push(Applied::one(id, keys));
    }
    Ok(past)
}

/// One column with the names.
pub(super) fn named(source: &Source<'_>, tool: Tool, column: &str, rest: &str) -> rusqlite::Result<Past> {
    let mut past = source.past(tool);
    for [name] in source.rows([column], rest)? {
        let name = name.unwrap_or_default();
        past.applied.push(Applied::one(name.clone(), vec![Key::Name(stem(&name).to_owned())]));
    }
    Ok(past)
}
