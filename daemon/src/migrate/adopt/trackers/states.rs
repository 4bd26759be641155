//! Trackers with a state: a migration may stand in them that failed, was taken back, or is being run.

use std::collections::BTreeMap;

use super::{
    super::past::{Applied, Key, Past, Tool, Trouble},
    Source, is_true, lists, stem,
};

/// `success` is 0 while a migration runs outside a transaction.
pub(super) fn sqlx(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Sqlx);
    for [version, description, success] in source.rows(["version", "description", "success"], "ORDER BY version")? {
        let (version, description) = (version.unwrap_or_default(), description.unwrap_or_default());
        let id = format!("{version} {description}");
        if is_true(success.as_ref()) {
            past.applied.push(Applied::one(id, vec![Key::of_version(&version)]));
        } else {
            past.trouble = Some(Trouble::dirty(
                format!("{id} was left half applied (success is 0)"),
                format!("finish or undo by hand what {version} began, delete its row from {}, and let sqlx run it again", source.table),
            ));
        }
    }
    Ok(past)
}

/// One row: the last version, and whether it was left half done.
pub(super) fn golang_migrate(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::GolangMigrate);
    for [version, dirty] in source.rows(["version", "dirty"], "LIMIT 1")? {
        let version = version.unwrap_or_default();
        if is_true(dirty.as_ref()) {
            past.trouble = Some(Trouble::dirty(
                format!("version {version} is dirty: it was left half applied"),
                format!("finish or undo by hand what {version} began, then `migrate force VERSION` with the version that is in place"),
            ));
        }
        past.applied.push(Applied::up_to(version.clone(), vec![Key::of_version(&version)]));
    }
    Ok(past)
}

/// A row for every up and down; the last one of a version counts. Version 0 is the tool's own beginning.
pub(super) fn goose(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut last: BTreeMap<u128, bool> = BTreeMap::new();
    for [version, applied] in source.rows(["version_id", "is_applied"], "ORDER BY id")? {
        if let Some(version) = version.and_then(|v| v.parse().ok()).filter(|v| *v != 0) {
            last.insert(version, is_true(applied.as_ref()));
        }
    }
    let applied = last.into_iter().filter(|(_, applied)| *applied).map(|(v, _)| Applied::one(v.to_string(), vec![Key::Numbers(vec![v])]));
    Ok(Past { applied: applied.collect(), ..source.past(Tool::Goose) })
}

/// `type` tells what a row is: SQL and JDBC are migrations, a baseline stands for all before it, UNDO and DELETE take one
/// back, a row without a version is a repeatable one.
pub(super) fn flyway(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Flyway);
    let (mut placed, mut repeatable): (Vec<(String, Applied)>, usize) = (Vec::new(), 0);
    for [version, kind, script, success] in source.rows(["version", "type", "script", "success"], "ORDER BY installed_rank")? {
        let (kind, script) = (kind.unwrap_or_default(), script.unwrap_or_default());
        let Some(version) = version else {
            repeatable += usize::from(kind != "SCHEMA");
            continue;
        };
        if !is_true(success.as_ref()) {
            past.trouble = Some(Trouble::dirty(
                format!("{script} failed and was left as it was (success is 0)"),
                "undo by hand what it began, then `flyway repair`".to_owned(),
            ));
            continue;
        }
        let numbers = Key::Numbers(version_parts(&version));
        if kind == "DELETE" || kind.starts_with("UNDO") {
            placed.retain(|(v, _)| *v != version);
        } else if kind.ends_with("BASELINE") {
            placed.push((version.clone(), Applied::up_to(format!("baseline {version}"), vec![numbers])));
        } else {
            placed.push((version, Applied::one(script.clone(), vec![Key::Name(stem(&script).to_owned()), numbers])));
        }
    }
    past.applied = placed.into_iter().map(|(_, applied)| applied).collect();
    if repeatable > 0 {
        past.notes.push(format!("{repeatable} repeatable migrations are not part of a chain, and are passed over"));
    }
    Ok(past)
}

fn version_parts(version: &str) -> Vec<u128> {
    let mut parts: Vec<u128> = version.split(['.', '_']).map(|p| p.parse().unwrap_or(u128::MAX)).collect();
    // 1 and 1.0 are one version.
    while parts.len() > 1 && parts.last() == Some(&0) {
        parts.pop();
    }
    parts
}

/// A change set is its id, author and file together. Beside it lies the lock.
pub(super) fn liquibase(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Liquibase);
    for [id, author, file, kind] in source.rows(["ID", "AUTHOR", "FILENAME", "EXECTYPE"], "ORDER BY ORDEREXECUTED")? {
        let (id, author, file) = (id.unwrap_or_default(), author.unwrap_or_default(), file.unwrap_or_default());
        let shown = format!("{file}::{id}::{author}");
        if kind.as_deref() == Some("FAILED") {
            past.trouble = Some(Trouble::dirty(format!("{shown} failed"), "mend the change set and run `liquibase update` again"));
            continue;
        }
        let keys = vec![Key::Name(format!("{}_{id}", stem(&file))), Key::of_version(&id), Key::Name(id), Key::Name(stem(&file).to_owned())];
        past.applied.push(Applied::one(shown, keys));
    }
    let lock = format!("{}LOCK", source.table);
    if let Some(lock) = source.has(&lock) {
        for [locked, by] in source.rows_of(lock, ["LOCKED", "LOCKEDBY"], "")? {
            if is_true(locked.as_ref()) {
                past.trouble = Some(Trouble::locked(
                    format!("{} holds its lock", by.as_deref().unwrap_or("somebody")),
                    "let it finish; if it died, `liquibase release-locks`",
                ));
            }
        }
    }
    Ok(past)
}

/// In place is what was finished and not rolled back.
pub(super) fn prisma(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Prisma);
    for [name, finished, rolled_back] in source.rows(["migration_name", "finished_at", "rolled_back_at"], "ORDER BY started_at, rowid")? {
        let name = name.unwrap_or_default();
        match (finished, rolled_back) {
            (_, Some(_)) => {}
            (Some(_), None) => past.applied.push(Applied::one(name.clone(), vec![Key::Name(name)])),
            (None, None) => {
                past.trouble = Some(Trouble::dirty(
                    format!("{name} was begun and not finished"),
                    format!("`prisma migrate resolve --rolled-back {name}` (or --applied) once what it began is undone (or done) by hand"),
                ));
            }
        }
    }
    Ok(past)
}

/// `name` with its extension; the lock beside it.
pub(super) fn knex(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = lists::named(source, Tool::Knex, "name", "ORDER BY id")?;
    past.trouble = lock_row(source, "if it died, `knex migrate:unlock`")?;
    Ok(past)
}

/// As knex, without ids.
pub(super) fn kysely(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = lists::named(source, Tool::Kysely, "name", "ORDER BY timestamp, name")?;
    past.trouble = lock_row(source, "if it died, set is_locked to 0")?;
    Ok(past)
}

/// `MigrationId`: stamp and name. A row in the lock's table is the lock.
pub(super) fn ef_core(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = lists::named(source, Tool::EfCore, "MigrationId", "ORDER BY 1")?;
    if let Some(lock) = source.has("__EFMigrationsLock")
        && let [[since], ..] = source.rows_of(lock, ["Timestamp"], "")?.as_slice()
    {
        past.trouble = Some(Trouble::locked(
            format!("it has held its lock since {}", since.as_deref().unwrap_or("some time ago")),
            format!("let it finish; if it died, drop the table {lock}"),
        ));
    }
    Ok(past)
}

/// In place is what has applied all of its statements.
pub(super) fn atlas(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = source.past(Tool::Atlas);
    for [version, applied, total, error] in source.rows(["version", "applied", "total", "error"], "ORDER BY version")? {
        let version = version.unwrap_or_default();
        // Its own row, with the version of the tool.
        if version == ".atlas_cloud_identifier" {
            continue;
        }
        if applied == total && error.as_deref().unwrap_or_default().is_empty() {
            past.applied.push(Applied::one(version.clone(), vec![Key::of_version(&version)]));
        } else {
            past.trouble =
                Some(Trouble::dirty(format!("{version} was left half applied"), "mend it, then `atlas migrate apply` or `atlas migrate set`"));
        }
    }
    Ok(past)
}

/// `migration_id`: the file's name. A row in `yoyo_lock` is the lock.
pub(super) fn yoyo(source: &Source<'_>) -> rusqlite::Result<Past> {
    let mut past = lists::named(source, Tool::Yoyo, "migration_id", "ORDER BY applied_at_utc, migration_id")?;
    if let Some(lock) = source.has("yoyo_lock")
        && let [[process], ..] = source.rows_of(lock, ["pid"], "")?.as_slice()
    {
        let process = process.as_deref().unwrap_or("unknown");
        past.trouble = Some(Trouble::locked(format!("process {process} holds its lock"), "let it finish; if it died, `yoyo break-lock`"));
    }
    Ok(past)
}

/// A lock table with one row and `is_locked`, named after the tracker.
fn lock_row(source: &Source<'_>, otherwise: &str) -> rusqlite::Result<Option<Trouble>> {
    let Some(lock) = source.has(&format!("{}_lock", source.table)) else { return Ok(None) };
    let held = source.rows_of(lock, ["is_locked"], "")?.iter().any(|[locked]| is_true(locked.as_ref()));
    Ok(held.then(|| Trouble::locked("it holds its lock", format!("let it finish; {otherwise}"))))
}
