//! Foreign keys of copied rows. They do not act while rows are copied: what was wrong before is tolerated, and only keys
//! that are new, or whose columns are computed, are looked at, row by row as they come.

use rusqlite::{Connection, params_from_iter, types::Value};

use super::{facts::Facts, shape::Shape};
use crate::migrate::{
    connection::Managed,
    error::{ApplyError, NAMED, sqlite},
    foreign::Violations,
    rows::table::{self, quote},
};

/// Refuses images of the table's rows in `range` that refer to nothing by a new foreign key.
pub(super) fn new_keys(managed: &Managed, shape: &Shape, range: &str, keys: &[Value]) -> Result<(), ApplyError> {
    let doing = "checking foreign keys";
    for reference in &shape.new_references {
        let parent = if reference.parent.eq_ignore_ascii_case(&shape.name) { &shape.table.name } else { &reference.parent };
        let from: Vec<String> = reference.from.iter().map(|column| format!("_image.{}", quote(column))).collect();
        let there = parent_columns(&managed.connection, parent, &reference.to).map_err(sqlite(doing))?.map(|to| {
            let same: Vec<String> = to.iter().zip(&from).map(|(to, from)| format!("_parent.{} = {from}", quote(to))).collect();
            format!("AND NOT EXISTS (SELECT 1 FROM main.{} AS _parent WHERE {})", quote(parent), same.join(" AND "))
        });
        let (new, old): (Vec<&str>, Vec<&str>) = shape.image.iter().map(|(new, old)| (new.as_str(), old.as_str())).unzip();
        let image: Vec<String> = new.iter().map(|column| format!("_image.{column}")).collect();
        let sql = format!(
            "SELECT {0} FROM main.{1} AS _image WHERE ({0}) IN (SELECT {2} FROM {3} WHERE {range}) AND {4} {5} LIMIT {6}",
            image.join(", "),
            quote(&shape.side),
            old.join(", "),
            shape.table.quoted,
            from.iter().map(|column| format!("{column} IS NOT NULL")).collect::<Vec<_>>().join(" AND "),
            there.unwrap_or_default(),
            NAMED + 1
        );
        let wrong: Vec<String> = managed
            .connection
            .prepare_cached(&sql)
            .and_then(|mut s| {
                let key = |row: &rusqlite::Row<'_>| (0..new.len()).map(|column| row.get(column)).collect::<rusqlite::Result<table::Key>>();
                s.query_map(params_from_iter(keys), |row| Ok(table::key_text(&key(row)?)))?.collect()
            })
            .map_err(sqlite(doing))?;
        if !wrong.is_empty() {
            let say = |key: &String| format!("{} row {key} refers to a row of {parent} that is not there", shape.name);
            return Err(ApplyError::NewViolations { total: wrong.len(), rows: wrong.iter().map(say).collect() });
        }
    }
    Ok(())
}

/// The columns that a key refers to; none where there is no such table.
fn parent_columns(connection: &Connection, parent: &str, to: &[String]) -> rusqlite::Result<Option<Vec<String>>> {
    let there: bool =
        connection
            .query_row("SELECT count(*) > 0 FROM main.sqlite_schema WHERE type = 'table' AND name = ?1 COLLATE NOCASE", [parent], |row| row.get(0))?;
    Ok(match (there, to) {
        (false, _) => None,
        (true, []) => Some(Facts::read(connection, parent)?.primary),
        (true, named) => Some(named.to_vec()),
    })
}

/// Tables that refer to columns that do not go over as they are, and what is wrong in them already: only those can come to
/// refer to nothing by the swap.
pub(super) fn children(managed: &Managed, shape: &Shape) -> Result<Option<(Vec<String>, Violations)>, ApplyError> {
    let doing = "checking foreign keys";
    let table = shape.table.name.to_lowercase();
    let mut affected = Vec::new();
    for child in managed.schema.children_of(&|_| false, &|parent| parent == table) {
        for reference in Facts::read(&managed.connection, &child).map_err(sqlite(doing))?.references {
            let to = parent_columns(&managed.connection, &reference.parent, &reference.to).map_err(sqlite(doing))?.unwrap_or_default();
            if reference.parent.eq_ignore_ascii_case(&table) && !to.iter().all(|column| shape.plain.contains(&column.to_lowercase())) {
                affected.push(child.clone());
            }
        }
    }
    affected.dedup();
    if affected.is_empty() {
        return Ok(None);
    }
    let (before, _) = Violations::read(&managed.connection, &managed.schema, Some(&affected)).map_err(sqlite(doing))?;
    Ok(Some((affected, before)))
}

/// Refuses what refers to nothing after the swap and did not before.
pub(super) fn orphans(managed: &Managed, (children, before): &(Vec<String>, Violations)) -> Result<(), ApplyError> {
    let (_, found) = Violations::read(&managed.connection, &managed.schema, Some(children)).map_err(sqlite("checking foreign keys"))?;
    let new = before.new_in(found);
    if new.is_empty() {
        return Ok(());
    }
    Err(ApplyError::NewViolations { total: new.len(), rows: new.into_iter().take(NAMED + 1).map(|v| v.0).collect() })
}
