//! What a migration does to the identity of rows and values: which column goes on under which name ([`same`], for the
//! publisher), and what becomes of unsent edits by id ([`by_id`], for whoever carries them over). Pure.

mod error;
mod who;

pub use self::{
    error::CarryError,
    who::{Before, Seen, same},
};
use crate::{
    columns::{ColumnMap, TableColumns},
    ledger::{ColumnChange, Renewed},
    manifest::{Carry, DropPolicy},
    near::did_you_mean,
};

/// A value that goes on in other columns: an unsent edit of `from` becomes one of each place that it moves to, with its
/// clock; where several move to one, the latest clock counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Move {
    /// Id of the column before.
    pub from: u32,
    /// Id of the table in which it goes on: the same one, or one into which a part of the row moves.
    pub table: u32,
    /// Id of the column there.
    pub column: u32,
}

/// A table that gets a part of each row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartOf {
    /// Id of that table.
    pub table: u32,
    /// Its key columns, in the order of their ids, each with the column of the old row whose value it has.
    pub key: Vec<(u32, u32)>,
}

/// What becomes of the edits of one table that are not sent yet. Columns that are not named keep their ids, under whatever
/// name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableCarry {
    /// Id of the table.
    pub table: u32,
    /// The table goes, and this becomes of edits that no part carries on.
    pub gone: Option<DropPolicy>,
    /// Columns that go without going on anywhere, by ascending id.
    pub drops: Vec<(u32, DropPolicy)>,
    /// Columns that go on elsewhere (split, merged, filled anew, moved into another table), sorted.
    pub moves: Vec<Move>,
    /// New key columns with the expression over the old row that gives their values, by ascending id.
    pub key: Vec<(u32, String)>,
    /// Tables that get a part of each row.
    pub into: Vec<PartOf>,
}

impl TableCarry {
    /// Whether all that is there goes on as it is, at most under another name.
    pub fn is_empty(&self) -> bool {
        *self == Self { table: self.table, ..Self::default() }
    }
}

/// What one version, which leads from the map `before` by `change` to `after`, does to unsent edits: one entry for each
/// table of which something has to be done, by ascending id. What is not in `carry` and goes is archived. Fails where
/// `carry` names what is in neither map; a chain that `publish` made never does.
pub fn by_id(before: &ColumnMap, after: &ColumnMap, change: &ColumnChange, carry: &[Carry]) -> Result<Vec<TableCarry>, CarryError> {
    let mut out = Vec::new();
    for old in &before.tables {
        let said = carry.iter().find(|c| c.table.eq_ignore_ascii_case(&old.name));
        let nothing = Carry::default();
        let one = table(old, after, change, said.unwrap_or(&nothing))?;
        if !one.is_empty() {
            out.push(one);
        }
    }
    match carry.iter().find(|c| before.table(&c.table).is_none()) {
        Some(lost) => Err(no_table(&lost.table, before)),
        None => Ok(out),
    }
}

fn table(old: &TableColumns, after: &ColumnMap, change: &ColumnChange, said: &Carry) -> Result<TableCarry, CarryError> {
    let new = after.table_by_id(old.id);
    let mut one = TableCarry { table: old.id, ..TableCarry::default() };
    let id_of = |column: &str| old.column(column).map(|c| c.id).ok_or_else(|| no_column(old, column));
    let there = |table: &TableColumns, column: &str| table.column(column).map(|c| c.id).ok_or_else(|| no_column(table, column));
    if let Some(new) = new {
        for (from, to) in &said.split {
            for column in to {
                one.moves.push(Move { from: id_of(from)?, table: old.id, column: there(new, column)? });
            }
        }
        for (to, from) in &said.merge {
            for column in from {
                one.moves.push(Move { from: id_of(column)?, table: old.id, column: there(new, to)? });
            }
        }
        for (column, expression) in &said.key {
            one.key.push((there(new, column)?, expression.clone()));
        }
        let renewed = change.renewed.iter().filter(|r| r.table == old.id);
        one.moves.extend(renewed.map(|Renewed { table, from, to }| Move { from: *from, table: *table, column: *to }));
    } else {
        one.gone = Some(said.gone.unwrap_or(DropPolicy::Archive));
    }
    for (name, part) in &said.into {
        let target = after.table(name).ok_or_else(|| no_table(name, after))?;
        let mut key = part.key.iter().map(|(to, from)| Ok((there(target, to)?, id_of(from)?))).collect::<Result<Vec<_>, CarryError>>()?;
        key.sort_unstable();
        for (from, to) in &part.columns {
            one.moves.push(Move { from: id_of(from)?, table: target.id, column: there(target, to)? });
        }
        one.into.push(PartOf { table: target.id, key });
    }
    one.moves.sort_unstable();
    one.moves.dedup();
    // A column that stays where it was goes on there by itself.
    one.moves.retain(|m| !(m.table == old.id && m.from == m.column));
    one.key.sort_unstable();
    if let Some(new) = new {
        for column in &old.columns {
            let policy = said.drop.iter().find(|(name, _)| name.eq_ignore_ascii_case(&column.name)).map(|(_, policy)| *policy);
            if new.column_by_id(column.id).is_none() && !one.moves.iter().any(|m| m.from == column.id) {
                one.drops.push((column.id, policy.unwrap_or(DropPolicy::Archive)));
            }
        }
    }
    Ok(one)
}

fn no_table(name: &str, map: &ColumnMap) -> CarryError {
    CarryError::NoTable { table: name.to_owned(), when: "", near: did_you_mean(name, map.tables.iter().map(|t| t.name.as_str())) }
}

fn no_column(table: &TableColumns, column: &str) -> CarryError {
    let near = did_you_mean(column, table.columns.iter().map(|c| c.name.as_str()));
    CarryError::NoColumn { table: table.name.clone(), column: column.to_owned(), when: "", near }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    fn map(json: &str) -> ColumnMap {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn every_unsent_value_has_a_fate_by_id() {
        let before = map(r#"[[1,"person",[[1,"id"],[2,"name"],[3,"area"],[4,"number"],[5,"zip"],[6,"street"],[7,"nick"]]],[2,"old",[[1,"id"]]]]"#);
        let after = map(r#"[[1,"people",[[8,"uuid"],[9,"given"],[10,"surname"],[11,"phone"],[12,"Nick"]]],[3,"place",[[1,"person"],[2,"street"]]]]"#);
        let change = ColumnChange { renewed: vec![Renewed { table: 1, from: 7, to: 12 }], ..ColumnChange::default() };
        let carry = Manifest::parse(
            r#"
[[carry]]
table = "Person"
to = "people"
split = { name = ["given", "surname"] }
merge = { phone = ["area", "number"] }
drop = { ZIP = "block" }
key = { uuid = "lower(hex(id))" }
[carry.into.place]
key = { person = "id" }
columns = { street = "street" }
"#,
        )
        .unwrap()
        .carry;
        let m = |from: u32, table: u32, column: u32| Move { from, table, column };
        assert_eq!(
            by_id(&before, &after, &change, &carry).unwrap(),
            [
                TableCarry {
                    table: 1,
                    gone: None,
                    drops: vec![(1, DropPolicy::Archive), (5, DropPolicy::Block)],
                    moves: vec![m(2, 1, 9), m(2, 1, 10), m(3, 1, 11), m(4, 1, 11), m(6, 3, 2), m(7, 1, 12)],
                    key: vec![(8, "lower(hex(id))".to_owned())],
                    into: vec![PartOf { table: 3, key: vec![(1, 1)] }],
                },
                TableCarry { table: 2, gone: Some(DropPolicy::Archive), ..TableCarry::default() },
            ]
        );
        assert_eq!(by_id(&before, &before, &ColumnChange::default(), &[]).unwrap(), []);
        let wrong = [Carry { table: "persona".to_owned(), ..Carry::default() }];
        assert!(by_id(&before, &after, &change, &wrong).unwrap_err().to_string().contains("did you mean person?"));
    }
}
