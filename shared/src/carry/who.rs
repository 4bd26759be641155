//! Who is who after a migration: by what `[[carry]]` says, by the renames that were seen, by name. What could be two things
//! is refused where edits could be lost by it, that is on tables that exchange rows. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::CarryError;
use crate::{
    columns::{ColumnMap, TableColumns},
    ledger::{Same, Shape},
    manifest::Carry,
    near::did_you_mean,
};

/// What statements were seen to do, whoever looked. All names in ASCII lower case.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Tables that `ALTER TABLE … RENAME TO` gave another name: the one before the migration, and the one after it.
    pub tables: BTreeMap<String, String>,
    /// Columns that `RENAME COLUMN` gave another name: table and column before, column after.
    pub columns: BTreeMap<(String, String), String>,
    /// Tables that were dropped and made again without their rows.
    pub remade_tables: BTreeSet<String>,
    /// Columns that were dropped and added again: table and column, as they are called before.
    pub remade_columns: BTreeSet<(String, String)>,
}

/// What there was in front of a migration.
#[derive(Clone, Copy)]
pub struct Before<'a> {
    /// The map.
    pub map: &'a ColumnMap,
    /// Whether a table, by id, exchanges rows; then with the ids of its key's columns.
    pub synced: &'a dyn Fn(u32) -> Option<Vec<u32>>,
}

/// Finds out who is who among `after`. All that is wrong with `carry`, and all that it lacks, is in the error.
pub fn same(before: Before<'_>, after: &[Shape], carry: &[Carry], seen: &Seen) -> Result<Same, Vec<CarryError>> {
    let mut errors = Vec::new();
    let mut said: BTreeMap<u32, &Carry> = BTreeMap::new();
    for one in carry {
        match before.map.table(&one.table) {
            None => errors.push(CarryError::NoTable {
                table: one.table.clone(),
                when: " before it",
                near: did_you_mean(&one.table, before.map.tables.iter().map(|t| t.name.as_str())),
            }),
            Some(old) => {
                if said.insert(old.id, one).is_some() {
                    errors.push(CarryError::Twice { what: old.name.clone() });
                }
            }
        }
    }
    let mut same = Same::default();
    let homes = tables(before, after, &said, seen, &mut same, &mut errors);
    let nothing = Carry::default();
    for old in &before.map.tables {
        let said = said.get(&old.id).copied();
        let new = homes.get(&old.id).copied();
        if let Some(said) = said {
            parts(old, said, before.map, after, &homes, &mut errors);
        }
        if let Some(new) = new {
            let one = Columns { old, new, said: said.unwrap_or(&nothing), seen, key: (before.synced)(old.id), written: said.is_some() };
            one.settle(&mut same, &mut errors);
        }
    }
    if errors.is_empty() { Ok(same) } else { Err(errors) }
}

fn lower(name: &str) -> String {
    name.to_ascii_lowercase()
}

fn shape<'a>(after: &'a [Shape], name: &str) -> Option<&'a Shape> {
    after.iter().find(|s| s.name.eq_ignore_ascii_case(name))
}

/// Where each table goes on: its shape afterwards, by the id it had.
fn tables<'a>(
    before: Before<'_>,
    after: &'a [Shape],
    said: &BTreeMap<u32, &Carry>,
    seen: &Seen,
    same: &mut Same,
    errors: &mut Vec<CarryError>,
) -> BTreeMap<u32, &'a Shape> {
    let mut homes: BTreeMap<u32, &Shape> = BTreeMap::new();
    let mut taken: BTreeMap<String, String> = BTreeMap::new();
    let mut claim = |old: &TableColumns, new: &'a Shape, errors: &mut Vec<CarryError>| {
        if taken.insert(lower(&new.name), old.name.clone()).is_some() {
            errors.push(CarryError::Twice { what: format!("who becomes {}", new.name) });
        }
        homes.insert(old.id, new);
    };
    let mut rest: Vec<&TableColumns> = Vec::new();
    for old in &before.map.tables {
        let exchanges = (before.synced)(old.id).is_some();
        let one = said.get(&old.id).copied();
        let renamed = seen.tables.get(&lower(&old.name)).and_then(|to| shape(after, to));
        if let Some(to) = one.and_then(|c| c.to.as_ref()) {
            if one.is_some_and(|c| c.gone.is_some()) {
                errors.push(CarryError::Twice { what: old.name.clone() });
            }
            match shape(after, to) {
                Some(new) => {
                    let moves = |t: &TableColumns| {
                        said.get(&t.id).is_some_and(|c| c.to.is_some() || c.gone.is_some()) || seen.tables.contains_key(&lower(&t.name))
                    };
                    match before.map.table(to).filter(|t| t.id != old.id && !moves(t)) {
                        Some(owner) => errors.push(CarryError::Occupied { what: owner.name.clone() }),
                        None => claim(old, new, errors),
                    }
                }
                None => errors.push(CarryError::NoTable {
                    table: to.clone(),
                    when: " after it",
                    near: did_you_mean(to, after.iter().map(|s| s.name.as_str())),
                }),
            }
        } else if one.is_some_and(|c| c.gone.is_some()) {
            match renamed {
                Some(new) => errors.push(CarryError::Contradicts { what: old.name.clone(), said: "gone".to_owned(), seen: new.name.clone() }),
                None if shape(after, &old.name).is_some() && !seen.remade_tables.contains(&lower(&old.name)) => {
                    errors.push(CarryError::StillThere { what: old.name.clone(), fate: "is gone" });
                }
                None => {}
            }
        } else if let Some(new) = renamed {
            if exchanges {
                let mut text = entry(one.is_some(), &old.name, &format!("to = {}", word(&new.name)));
                if shape(after, &old.name).is_some() {
                    text.push_str(&format!(
                        "\nor, if the new {0} has its rows and is still the same:\n{1}",
                        old.name,
                        entry(one.is_some(), &old.name, &format!("to = {}", word(&old.name)))
                    ));
                }
                errors.push(CarryError::Needed { why: format!("{} exchanges rows and is renamed to {}", old.name, new.name), text });
            }
            claim(old, new, errors);
        } else {
            rest.push(old);
        }
    }
    // By name, whoever is not somebody else by now. Looked up and not searched for: a chain may have thousands of tables.
    let by_name: BTreeMap<String, &Shape> = after.iter().map(|s| (lower(&s.name), s)).collect();
    let was: BTreeMap<String, u32> = before.map.tables.iter().map(|t| (lower(&t.name), t.id)).collect();
    let mut homed: BTreeSet<String> = homes.values().map(|s| lower(&s.name)).collect();
    let mut vanished = Vec::new();
    for old in rest {
        let name = lower(&old.name);
        match by_name.get(&name) {
            Some(new) if !homed.contains(&name) && !seen.remade_tables.contains(&name) => {
                homes.insert(old.id, new);
                homed.insert(name);
            }
            Some(_) | None => vanished.push(old),
        }
    }
    for (id, new) in &homes {
        if was.get(&lower(&new.name)) != Some(id) {
            same.tables.insert(lower(&new.name), Some(*id));
        }
    }
    for name in by_name.keys().filter(|name| was.contains_key(*name) && !homed.contains(*name)) {
        same.tables.insert(name.clone(), None);
    }
    let gone = |old: &TableColumns| said.get(&old.id).is_some_and(|c| c.gone.is_some());
    for old in vanished.into_iter().filter(|old| !gone(old) && (before.synced)(old.id).is_some()) {
        let alike = |s: &&Shape| s.columns.iter().filter(|c| old.column(c).is_some()).count() * 2 >= old.columns.len();
        let Some(new) = after.iter().filter(|s| !taken_by(&homes, s)).find(alike) else { continue };
        let written = said.contains_key(&old.id);
        let text =
            format!("{}\nor\n{}", entry(written, &old.name, &format!("to = {}", word(&new.name))), entry(written, &old.name, "gone = \"archive\""));
        let why = format!("{} exchanges rows and goes, and {} may be the same or another", old.name, new.name);
        errors.push(CarryError::Needed { why, text });
    }
    homes
}

fn taken_by(homes: &BTreeMap<u32, &Shape>, new: &Shape) -> bool {
    homes.values().any(|s| std::ptr::eq(*s, new))
}

/// One table that goes on, and what happens to its columns.
struct Columns<'a> {
    old: &'a TableColumns,
    new: &'a Shape,
    said: &'a Carry,
    seen: &'a Seen,
    /// The ids of its key's columns, where it exchanges rows.
    key: Option<Vec<u32>>,
    /// Whether there is an entry to write into.
    written: bool,
}

impl Columns<'_> {
    fn settle(&self, same: &mut Same, errors: &mut Vec<CarryError>) {
        let Self { old, new, said, seen, .. } = self;
        let table = lower(&new.name);
        let has = |column: &str| new.columns.iter().any(|c| c.eq_ignore_ascii_case(column));
        let remade = |column: &str| seen.remade_columns.contains(&(lower(&old.name), lower(column)));
        let sources = said.rename.keys().chain(said.drop.keys()).chain(said.split.keys()).chain(said.merge.values().flatten());
        let targets = said.rename.values().chain(said.split.values().flatten()).chain(said.merge.keys()).chain(said.key.keys());
        let before: Vec<&String> = sources.chain(said.into.values().flat_map(|part| part.columns.keys())).collect();
        for name in before.iter().filter(|name| old.column(name).is_none()) {
            errors.push(self.no_column(&old.name, name, " before it", &mut old.columns.iter().map(|c| c.name.as_str())));
        }
        for name in targets.filter(|name| !has(name)) {
            errors.push(self.no_column(&new.name, name, " after it", &mut new.columns.iter().map(String::as_str)));
        }
        for (at, name) in before.iter().enumerate() {
            if before[..at].iter().any(|n| n.eq_ignore_ascii_case(name)) {
                errors.push(CarryError::Twice { what: format!("{}.{name}", old.name) });
            }
        }
        let mut claims: BTreeMap<String, u32> = BTreeMap::new();
        let mut claim = |to: &str, id: u32, errors: &mut Vec<CarryError>| {
            if claims.insert(lower(to), id).is_some() {
                errors.push(CarryError::Twice { what: format!("{}.{to}", new.name) });
            }
        };
        for (from, to) in &said.rename {
            let what = || format!("{}.{from}", old.name);
            if let Some(renamed) = seen.columns.get(&(lower(&old.name), lower(from))).filter(|r| !r.eq_ignore_ascii_case(to)) {
                errors.push(CarryError::Contradicts { what: what(), said: to.clone(), seen: renamed.clone() });
            }
            if let Some(column) = old.column(from) {
                claim(to, column.id, errors);
            }
        }
        for ((_, from), to) in seen.columns.iter().filter(|((t, _), _)| *t == lower(&old.name)) {
            let covered = before.iter().any(|name| name.eq_ignore_ascii_case(from));
            let Some(column) = old.column(from).filter(|_| !covered && has(to)) else { continue };
            if self.key.is_some() {
                let said_to = new.columns.iter().find(|c| c.eq_ignore_ascii_case(to)).map_or(to.as_str(), String::as_str);
                let text = entry(self.written, &old.name, &format!("rename = {{ {} = {} }}", bare(&column.name), word(said_to)));
                let why = format!("{} exchanges rows and its {} is renamed to {said_to}", old.name, column.name);
                errors.push(CarryError::Needed { why, text });
            }
            claim(to, column.id, errors);
        }
        let leaves = |name: &str| {
            before.iter().any(|b| b.eq_ignore_ascii_case(name))
                || remade(name)
                || claims.values().any(|id| old.column(name).is_some_and(|c| c.id == *id))
        };
        // A name that is somebody's now was nobody's before, or its owner goes elsewhere.
        for (to, id) in &claims {
            if old.column(to).is_some_and(|c| c.id != *id) && !leaves(to) {
                errors.push(CarryError::Occupied { what: format!("{}.{to}", new.name) });
            }
        }
        for (from, fate) in said.rename.keys().map(|n| (n, "is renamed")).chain(said.drop.keys().map(|n| (n, "goes"))) {
            let renamed_away = seen.columns.contains_key(&(lower(&old.name), lower(from)));
            if has(from) && !claims.contains_key(&lower(from)) && !remade(from) && !renamed_away {
                errors.push(CarryError::StillThere { what: format!("{}.{from}", old.name), fate });
            }
        }
        for (from, to) in &said.split {
            if to.len() < 2 {
                errors.push(self.senseless(format!("`split` of {from} names {} column; it takes two or more, and `rename` one", to.len())));
            }
            if let Some(there) = to.iter().find(|n| old.column(n).is_some() && !leaves(n)) {
                errors.push(CarryError::Occupied { what: format!("{}.{there}", new.name) });
            }
        }
        for (to, _) in said.merge.iter().filter(|(_, from)| from.len() < 2) {
            errors.push(self.senseless(format!("`merge` to {to} names fewer than two columns; `rename` is for one")));
        }
        self.unsaid(&before, &claims, errors);
        for column in &new.columns {
            let name = lower(column);
            let at = (table.clone(), name.clone());
            match claims.get(&name) {
                Some(id) => same.columns.insert(at, Some(*id)),
                // What is dropped in one breath with its table's other columns kept, and is there again, is a new one.
                None if remade(&name) || said.drop.keys().any(|d| d.eq_ignore_ascii_case(&name)) => same.columns.insert(at, None),
                None => None,
            };
        }
        self.keys(&claims, errors);
    }

    /// Columns that went without a word while others came.
    fn unsaid(&self, before: &[&String], claims: &BTreeMap<String, u32>, errors: &mut Vec<CarryError>) {
        let Self { old, new, said, .. } = self;
        if self.key.is_none() {
            return;
        }
        let is_new = |name: &&String| {
            let target = said.split.values().flatten().chain(said.merge.keys()).chain(said.key.keys()).any(|t| t.eq_ignore_ascii_case(name));
            !claims.contains_key(&lower(name)) && old.column(name).is_none() && !target
        };
        let came: Vec<&String> = new.columns.iter().filter(is_new).collect();
        let stays = |id: u32, name: &str| claims.values().any(|c| *c == id) || new.columns.iter().any(|c| c.eq_ignore_ascii_case(name));
        let went = old.columns.iter().filter(|c| !stays(c.id, &c.name) && !before.iter().any(|b| b.eq_ignore_ascii_case(&c.name)));
        for column in went.filter(|_| !came.is_empty()) {
            let line = |text: &str| entry(self.written, &old.name, text);
            let name = bare(&column.name);
            let text = match came.as_slice() {
                [one] => format!(
                    "{}\nor\n{}",
                    line(&format!("rename = {{ {name} = {} }}", word(one))),
                    line(&format!("drop = {{ {name} = \"archive\" }}"))
                ),
                _ => format!("{}\nor a `rename`, `split` or `merge` with {name} in it", line(&format!("drop = {{ {name} = \"archive\" }}"))),
            };
            let came: Vec<&str> = came.iter().map(|c| c.as_str()).collect();
            let why = format!("{} exchanges rows, its {} goes and {} comes: that may be the same or another", old.name, column.name, came.join(", "));
            errors.push(CarryError::Needed { why, text });
        }
    }

    /// A key that becomes another.
    fn keys(&self, claims: &BTreeMap<String, u32>, errors: &mut Vec<CarryError>) {
        let Self { old, new, said, .. } = self;
        for column in said.key.keys().filter(|c| !new.key.iter().any(|k| k.eq_ignore_ascii_case(c))) {
            errors.push(self.senseless(format!("`key` gives {column}, which is no part of the new primary key ({})", new.key.join(", "))));
        }
        if let Some((column, _)) = said.key.iter().find(|(_, expression)| expression.trim().is_empty()) {
            errors.push(self.senseless(format!("`key` gives {column} no expression")));
        }
        let Some(key) = &self.key else { return };
        let id_of = |name: &String| claims.get(&lower(name)).copied().or_else(|| old.column(name).map(|c| c.id));
        let now: Vec<Option<u32>> = new.key.iter().map(id_of).collect();
        let said_all = !said.key.is_empty()
            && new.key.iter().zip(&now).all(|(k, id)| id.is_some_and(|id| key.contains(&id)) || said.key.keys().any(|s| s.eq_ignore_ascii_case(k)));
        if now != key.iter().map(|id| Some(*id)).collect::<Vec<_>>() && !said_all && !new.key.is_empty() {
            let lines: Vec<String> = new.key.iter().map(|k| format!("{} = \"EXPRESSION OVER THE OLD ROW\"", bare(k))).collect();
            let text = entry(self.written, &old.name, &format!("key = {{ {} }}", lines.join(", ")));
            errors.push(CarryError::Needed { why: format!("{} exchanges rows and has another primary key", old.name), text });
        }
    }

    fn senseless(&self, why: String) -> CarryError {
        CarryError::Senseless { table: self.old.name.clone(), why }
    }

    fn no_column(&self, table: &str, column: &str, when: &'static str, right: &mut dyn Iterator<Item = &str>) -> CarryError {
        CarryError::NoColumn { table: table.to_owned(), column: column.to_owned(), when, near: did_you_mean(column, right) }
    }
}

/// Tables into which a part of each row moves.
fn parts(old: &TableColumns, said: &Carry, before: &ColumnMap, after: &[Shape], homes: &BTreeMap<u32, &Shape>, errors: &mut Vec<CarryError>) {
    let senseless = |why: String| CarryError::Senseless { table: old.name.clone(), why };
    for (name, part) in &said.into {
        let Some(target) = shape(after, name) else {
            let near = did_you_mean(name, after.iter().map(|s| s.name.as_str()));
            errors.push(CarryError::NoTable { table: name.clone(), when: " after it", near });
            continue;
        };
        if taken_by(homes, target) && before.table(name).is_some() {
            errors.push(senseless(format!("{name} is no new table, and its rows are its own")));
        }
        let no_column =
            |table: &str, column: &str, when, near: String| CarryError::NoColumn { table: table.to_owned(), column: column.to_owned(), when, near };
        for column in part.key.values().chain(part.columns.keys()).filter(|c| old.column(c).is_none()) {
            errors.push(no_column(&old.name, column, " before it", did_you_mean(column, old.columns.iter().map(|c| c.name.as_str()))));
        }
        for column in part.key.keys().chain(part.columns.values()).filter(|c| !target.columns.iter().any(|n| n.eq_ignore_ascii_case(c))) {
            errors.push(no_column(name, column, " after it", did_you_mean(column, target.columns.iter().map(String::as_str))));
        }
        let mut said_key: Vec<String> = part.key.keys().map(|k| lower(k)).collect();
        let mut real_key: Vec<String> = target.key.iter().map(|k| lower(k)).collect();
        said_key.sort();
        real_key.sort();
        if said_key != real_key {
            errors.push(senseless(format!("`into.{name}.key` has to name the primary key of {name}, which is ({})", target.key.join(", "))));
        }
    }
    // Where nothing of it stays, the table is gone for its columns' sake: each of them is in a part, or is archived.
    if !homes.contains_key(&old.id) {
        let stray = [
            ("rename", said.rename.is_empty()),
            ("split", said.split.is_empty()),
            ("merge", said.merge.is_empty()),
            ("key", said.key.is_empty()),
            ("drop", said.drop.is_empty()),
        ];
        for (key, _) in stray.into_iter().filter(|(_, empty)| !empty) {
            errors.push(senseless(format!("`{key}` is said of a table that goes")));
        }
    }
}

/// What to write: a whole entry, or the line for the one that is there.
fn entry(written: bool, table: &str, line: &str) -> String {
    if written { format!("(in the [[carry]] of {table})\n{line}") } else { format!("[[carry]]\ntable = {}\n{line}", word(table)) }
}

/// A TOML string.
fn word(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// A TOML key.
fn bare(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
    if plain { text.to_owned() } else { word(text) }
}

#[cfg(test)]
mod tests;
