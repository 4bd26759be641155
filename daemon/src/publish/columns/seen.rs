//! Which table and column is which after a script: ALTER statements followed one by one. Pure.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::{carry::Seen, ledger::Shape};

use crate::publish::{
    lint::rows::{Rows, SoFar},
    scan::{Deed, TableKind},
};

/// A table that was there before, or was made by the script.
#[derive(Clone, Default)]
struct Object {
    /// What it was called before; none where the script made it.
    origin: Option<String>,
    /// Its columns, each with what it was called before; none where it was added.
    columns: BTreeMap<String, Option<String>>,
}

/// Follows the deeds of a migration's scripts over the tables `before`.
pub(in crate::publish) fn seen<'d>(before: &[Shape], deeds: impl Iterator<Item = &'d Deed>) -> Seen {
    let lower = |name: &str| name.to_ascii_lowercase();
    let mut objects: BTreeMap<String, Object> = before
        .iter()
        .map(|shape| {
            let columns = shape.columns.iter().map(|c| (lower(c), Some(lower(c)))).collect();
            (lower(&shape.name), Object { origin: Some(lower(&shape.name)), columns })
        })
        .collect();
    let so_far = SoFar { tables: objects.keys().map(|t| (t.clone(), TableKind::Ordinary)).collect(), ..SoFar::default() };
    let mut rows = Rows::new(&so_far);
    for (index, deed) in deeds.enumerate() {
        rows.follow(index, deed);
        match deed {
            Deed::CreateTable { table, .. } => {
                objects.entry(table.clone()).or_default();
            }
            Deed::DropTable { table } => {
                objects.remove(table);
            }
            Deed::RenameTable { from, to } => {
                if let Some(object) = objects.remove(from) {
                    objects.insert(to.clone(), object);
                }
            }
            Deed::RenameColumn { table, from, to } => {
                if let Some(columns) = objects.get_mut(table).map(|o| &mut o.columns)
                    && let Some(origin) = columns.remove(from)
                {
                    columns.insert(to.clone(), origin);
                }
            }
            Deed::DropColumn { table, column } => {
                if let Some(object) = objects.get_mut(table) {
                    object.columns.remove(column);
                }
            }
            Deed::AddColumn { table, column, .. } => {
                if let Some(object) = objects.get_mut(table) {
                    object.columns.insert(column.clone(), None);
                }
            }
            _ => {}
        }
    }
    let mut seen = Seen::default();
    let mut still: BTreeSet<&String> = BTreeSet::new();
    for (name, object) in &objects {
        let Some(origin) = &object.origin else { continue };
        still.insert(origin);
        if origin != name {
            seen.tables.insert(origin.clone(), name.clone());
        }
        let was = before.iter().find(|s| lower(&s.name) == *origin);
        for (column, came_from) in &object.columns {
            match came_from {
                Some(from) if from != column => _ = seen.columns.insert((origin.clone(), from.clone()), column.clone()),
                Some(_) => {}
                None if was.is_some_and(|s| s.columns.iter().any(|c| lower(c) == *column)) => {
                    seen.remade_columns.insert((origin.clone(), column.clone()));
                }
                None => {}
            }
        }
    }
    for name in before.iter().map(|s| lower(&s.name)) {
        // There is one of its name, that is another and has none of its rows.
        if !still.contains(&name) && objects.contains_key(&name) && !rows.hold(&name, &name) {
            seen.remade_tables.insert(name);
        }
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::publish::scan;

    fn check(sql: &str, want: &str) {
        let shape = |name: &str| Shape { name: name.to_owned(), columns: vec!["id".into(), "A".into(), "b".into()], key: vec!["id".into()] };
        let deeds: Vec<Deed> = scan::statements(sql).iter().map(scan::deed).collect();
        let seen = seen(&[shape("t"), shape("u")], deeds.iter());
        let mut said: Vec<String> = seen.tables.iter().map(|(a, b)| format!("{a}→{b}")).collect();
        said.extend(seen.columns.iter().map(|((t, a), b)| format!("{t}.{a}→{b}")));
        said.extend(seen.remade_tables.iter().map(|t| format!("{t} anew")));
        said.extend(seen.remade_columns.iter().map(|(t, c)| format!("{t}.{c} anew")));
        assert_eq!(said.join(", "), want, "{sql}");
    }

    #[test]
    fn renames_are_followed_through_a_script() {
        check("ALTER TABLE t RENAME TO v", "t→v");
        check("ALTER TABLE t RENAME TO v; ALTER TABLE v RENAME TO t", "");
        check("ALTER TABLE t RENAME TO x; ALTER TABLE u RENAME TO t; ALTER TABLE x RENAME TO u", "t→u, u→t");
        check("ALTER TABLE T RENAME a TO c; ALTER TABLE t RENAME TO v", "t→v, t.a→c");
        check("ALTER TABLE t RENAME a TO c; ALTER TABLE t RENAME b TO a", "t.a→c, t.b→a");
        check("ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN a TEXT", "t.a anew");
        check("ALTER TABLE t DROP COLUMN a; ALTER TABLE t ADD COLUMN c TEXT", "");
        check("ALTER TABLE t RENAME a TO x; ALTER TABLE t ADD a; ALTER TABLE t DROP x", "t.a anew");
    }

    #[test]
    fn a_rebuild_is_no_rename_and_a_table_made_again_without_its_rows_is_another() {
        check("CREATE TABLE n(id, a, b); INSERT INTO n SELECT * FROM t; DROP TABLE t; ALTER TABLE n RENAME TO t", "");
        check("ALTER TABLE t RENAME TO o; CREATE TABLE t(id); INSERT INTO t SELECT id FROM o; DROP TABLE o", "");
        check("CREATE TEMP TABLE s AS SELECT * FROM t; DROP TABLE t; CREATE TABLE t(id); INSERT INTO t SELECT * FROM s", "");
        check("DROP TABLE t; CREATE TABLE t(id)", "t anew");
        check("ALTER TABLE t RENAME TO o; CREATE TABLE t(id)", "t→o");
        check("DROP TABLE t", "");
    }
}
