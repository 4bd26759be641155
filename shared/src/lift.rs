//! What has to be known to repeat a `backfill` on one row somewhere else: the table as it stands at that place of the
//! migration, and which of its columns is who before and after. `publish` sees it in the rehearsal and signs it; the
//! expressions themselves are in the target file. Pure.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    columns::TableColumns,
    ledger::Renewed,
    sql::{Token, tokens},
};

/// A `backfill` of a table that exchanges rows, where a row of an older version goes through it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lift {
    /// Number of the step in the target file, from 1.
    pub step: u32,
    /// Id of the table.
    pub table: u32,
    /// The text that makes it, as it is when the step runs.
    pub create: String,
    /// Its columns as the step names them; generated ones are not in it.
    pub columns: Vec<LiftColumn>,
}

/// A column at a step: its name there, its id in the version before, its id in the version that the step belongs to. 0: it
/// is not there. `["zip",4,6]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(String, u32, u32)", into = "(String, u32, u32)")]
pub struct LiftColumn {
    /// What the step calls it.
    pub name: String,
    /// Whose value it begins with; 0: its default.
    pub before: u32,
    /// Who gets the value that it ends with; 0: nobody.
    pub after: u32,
}

impl Lift {
    /// Adds to `follows` which values are computed from which: by the id of each column that the step writes, in the version
    /// that it belongs to, those that it is computed from, by their ids in the version before. Steps are asked in their
    /// order: what is computed from a computed value follows the first one's sources. Generous: a name that is read anywhere
    /// in an assignment or in the condition counts.
    pub fn follows(&self, set: &str, filter: &str, follows: &mut BTreeMap<u32, BTreeSet<u32>>) {
        let named = |token: &Token| match token {
            Token::Word(name) | Token::Quoted(name) => self.columns.iter().find(|c| c.name.eq_ignore_ascii_case(name)),
            Token::Literal(_) | Token::Mark(_) => None,
        };
        let filtered: Vec<&LiftColumn> = tokens(filter).iter().filter_map(named).collect();
        let (mut depth, mut left) = (0_i32, true);
        let mut assignments: Vec<(Vec<&LiftColumn>, Vec<&LiftColumn>)> = vec![Default::default()];
        let set = tokens(set);
        for token in &set {
            let at = assignments.last_mut().expect("there is one");
            match token {
                Token::Mark('(') => depth += 1,
                Token::Mark(')') => depth -= 1,
                Token::Mark('=') if depth == 0 && left => left = false,
                Token::Mark(',') if depth == 0 => {
                    left = true;
                    assignments.push(Default::default());
                }
                token if left => at.0.extend(named(token)),
                token => at.1.extend(named(token)),
            }
        }
        // Every assignment reads the row as it is before the step.
        let earlier = follows.clone();
        for (written, read) in assignments {
            let mut sources = BTreeSet::new();
            for column in read.iter().chain(&filtered) {
                sources.extend((column.before != 0).then_some(column.before));
                sources.extend(earlier.get(&column.after).into_iter().flatten().copied());
            }
            for column in written.iter().filter(|c| c.after != 0) {
                follows.entry(column.after).or_default().extend(&sources);
            }
        }
    }
}

impl From<(String, u32, u32)> for LiftColumn {
    fn from((name, before, after): (String, u32, u32)) -> Self {
        Self { name, before, after }
    }
}

impl From<LiftColumn> for (String, u32, u32) {
    fn from(column: LiftColumn) -> Self {
        (column.name, column.before, column.after)
    }
}

/// Who the columns of a table are in the middle of a migration that leads from `before` to `after`, where renames and drops
/// are done or are still to come. None where that cannot be told: a name that two columns have, one before and one after.
pub fn columns_at(names: &[String], before: &TableColumns, after: &TableColumns, renewed: &[Renewed]) -> Option<Vec<LiftColumn>> {
    let becomes = |id: u32| match renewed.iter().find(|r| r.table == after.id && r.from == id) {
        Some(renewed) => renewed.to,
        None => after.column_by_id(id).map_or(0, |c| c.id),
    };
    let was = |id: u32| match renewed.iter().find(|r| r.table == after.id && r.to == id) {
        Some(renewed) => renewed.from,
        None => before.column_by_id(id).map_or(0, |c| c.id),
    };
    let all = |side: &TableColumns| side.columns.iter().all(|c| names.iter().any(|n| n.eq_ignore_ascii_case(&c.name)));
    names
        .iter()
        .map(|name| {
            let (old, new) = (before.column(name).map(|c| c.id), after.column(name).map(|c| c.id));
            let by_old = |id: u32| (id, becomes(id));
            let by_new = |id: u32| (was(id), id);
            let (before, after) = match (old, new) {
                (None, None) => (0, 0),
                (Some(old), None) => by_old(old),
                (None, Some(new)) => by_new(new),
                (Some(old), Some(new)) if becomes(old) == new => (old, new),
                (Some(old), Some(new)) => match (all(before), all(after)) {
                    (true, false) => by_old(old),
                    (false, true) => by_new(new),
                    (true, true) | (false, false) => return None,
                },
            };
            Some(LiftColumn { name: name.clone(), before, after })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(json: &str) -> TableColumns {
        serde_json::from_str(json).unwrap()
    }

    fn check(names: &[&str], before: &str, after: &str, renewed: &[(u32, u32)], expected: Option<&str>) {
        let names: Vec<String> = names.iter().map(|n| (*n).to_owned()).collect();
        let renewed: Vec<Renewed> = renewed.iter().map(|(from, to)| Renewed { table: 1, from: *from, to: *to }).collect();
        let found = columns_at(&names, &table(before), &table(after), &renewed);
        assert_eq!(found.map(|c| serde_json::to_string(&c).unwrap()).as_deref(), expected, "{names:?}");
    }

    #[test]
    fn a_column_in_the_middle_of_a_migration_is_known_by_its_old_and_its_new_name() {
        let before = r#"[1,"person",[[1,"id"],[2,"first"],[3,"name"]]]"#;
        let after = r#"[1,"people",[[1,"id"],[2,"given"],[4,"family"]]]"#;
        // The rename is done or to come; `name` still there; `family` new; one that lives only for the migration.
        check(
            &["id", "Given", "name", "family", "tmp"],
            before,
            after,
            &[],
            Some(r#"[["id",1,1],["Given",2,2],["name",3,0],["family",0,4],["tmp",0,0]]"#),
        );
        check(&["id", "first", "name", "family"], before, after, &[], Some(r#"[["id",1,1],["first",2,2],["name",3,0],["family",0,4]]"#));
    }

    #[test]
    fn a_column_that_is_filled_anew_begins_as_the_old_one_whatever_it_is_called() {
        let before = r#"[1,"t",[[1,"id"],[2,"zip"]]]"#;
        check(&["id", "zip"], before, r#"[1,"t",[[1,"id"],[5,"zip"]]]"#, &[(2, 5)], Some(r#"[["id",1,1],["zip",2,5]]"#));
        let renamed = r#"[1,"t",[[1,"id"],[5,"code"]]]"#;
        check(&["id", "zip"], before, renamed, &[(2, 5)], Some(r#"[["id",1,1],["zip",2,5]]"#));
        check(&["id", "code"], before, renamed, &[(2, 5)], Some(r#"[["id",1,1],["code",2,5]]"#));
    }

    #[test]
    fn names_that_changed_hands_are_told_apart_by_the_rest_of_the_table_or_not_at_all() {
        let before = r#"[1,"t",[[1,"id"],[2,"a"],[3,"b"]]]"#;
        check(&["id", "a", "b"], before, r#"[1,"t",[[1,"id"],[2,"b"],[3,"a"]]]"#, &[], None);
        // `b` became `a`, and the old `a` is gone.
        let after = r#"[1,"t",[[1,"id"],[3,"a"]]]"#;
        check(&["id", "a", "b"], before, after, &[], None);
        check(&["id", "a"], before, after, &[], Some(r#"[["id",1,1],["a",3,3]]"#));
        let more = r#"[1,"t",[[1,"id"],[3,"a"],[4,"c"]]]"#;
        check(&["id", "a", "b"], before, more, &[], Some(r#"[["id",1,1],["a",2,0],["b",3,3]]"#));
    }

    #[test]
    fn a_computed_column_follows_what_it_is_computed_from_also_over_two_steps() {
        let columns = r#"[["id",1,1],["title",2,2],["body",3,3],["slug",0,4],["short",0,5],["n",0,6]]"#;
        let lift = Lift { step: 1, table: 1, create: String::new(), columns: serde_json::from_str(columns).unwrap() };
        let mut follows = BTreeMap::new();
        lift.follows("Slug = lower(replace(\"title\", ' body ', '-')), n = max(length(body), 3)", "slug IS NULL", &mut follows);
        lift.follows("(short) = (substr(slug, 1, 3))", "", &mut follows);
        let of = |ids: &[u32]| ids.iter().copied().collect::<BTreeSet<u32>>();
        assert_eq!(follows, BTreeMap::from([(4, of(&[2])), (5, of(&[2])), (6, of(&[3]))]));
    }
}
