//! Every rule with its code, for `whimbrel lint --list` and the documentation. Pure.

use serde::Serialize;

use super::Rule;

/// A rule, as it is listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// Its code.
    pub code: &'static str,
    /// What sees it: `lint` reads the text, `rehearse` runs it, `device` looks before it applies.
    pub seen_by: &'static str,
    /// What it says.
    pub what: &'static str,
}

/// All rules, by code.
pub fn list() -> Vec<Listed> {
    let mut rules: Vec<Listed> = ALL.iter().map(|(rule, seen_by, what)| Listed { code: rule.code(), seen_by, what }).collect();
    rules.sort_by_key(|rule| rule.code);
    rules
}

const LINT: &str = "lint";
const REHEARSE: &str = "rehearse";
const DEVICE: &str = "device";

const ALL: [(Rule, &str, &str); 42] = [
    (Rule::DropTable, LINT, "a table goes with its rows"),
    (Rule::DropColumn, LINT, "a column goes with its values"),
    (Rule::Rename, LINT, "a table or column that a running app uses changes its name"),
    (Rule::NeedsEmptyTable, LINT, "an added column that SQLite accepts on an empty table only"),
    (Rule::UniqueOverRows, LINT, "a unique index over rows that are there already (a sample shows doubles)"),
    (Rule::RenameFirst, LINT, "a rebuild that renames the old table first"),
    (Rule::Pragma, LINT, "a pragma that has no effect in a transaction, or that no migration may use"),
    (Rule::DropUnderCascades, LINT, "a table is dropped while cascades act"),
    (Rule::UpdateAll, LINT, "every row of a table is rewritten"),
    (Rule::LostObject, REHEARSE, "a rebuild lost an index or a trigger"),
    (Rule::Broken, REHEARSE, "a view or trigger does not compile any more; the rehearsal stops there"),
    (Rule::Transaction, LINT, "transaction control that cannot be granted"),
    (Rule::PositionalInsert, LINT, "a trigger inserts without naming columns"),
    (Rule::QuotedDefault, LINT, "a default in double quotes"),
    (Rule::DiskRoom, DEVICE, "more is written than the disk has room for; the migration waits as disk_full"),
    (Rule::TypeChange, REHEARSE, "a column's type changes, or its table becomes STRICT, under the values that are there"),
    (Rule::DeleteAll, LINT, "every row of a table is deleted"),
    (Rule::WholeFile, LINT, "a statement reaches beyond the file, or rewrites it whole"),
    (Rule::Reserved, LINT, "a name that belongs to whimbrel"),
    (Rule::Down, REHEARSE, "the way down does not lead back"),
    (Rule::UnusedFile, LINT, "a file that no step runs"),
    (Rule::Backfill, LINT, "a backfill's result depends on more than its own row"),
    (Rule::SyncedRows, LINT, "rows of a table that exchanges rows are changed past the journal"),
    (Rule::DanglingKey, REHEARSE, "a foreign key to a table that is not there"),
    (Rule::SyncKeys, REHEARSE, "keys that SQLite assigns, exchanged both ways"),
    (Rule::Nothing, LINT, "a migration in which nothing is said"),
    (Rule::HalfWay, REHEARSE, "an online migration that its way down cannot take back from half-way"),
    (Rule::RowTarget, LINT, "a row step of a table that is not there"),
    (Rule::RowStep, LINT, "a row step whose keys make no sense together"),
    (Rule::ShippedFile, LINT, "a shipped file that is neither NDJSON nor CSV, or does not parse"),
    (Rule::LoadKey, REHEARSE, "a load whose key is not unique in its table; the rehearsal stops there"),
    (Rule::ClearExisting, LINT, "a table is emptied before a load"),
    (Rule::SyncedInOne, LINT, "rows of a table that exchanges rows are changed in one transaction"),
    (Rule::Continues, LINT, "a continues_after that is no place to go on from"),
    (Rule::MadeUpRow, REHEARSE, "a backfill fails on a made-up row, or leaves it to be done again"),
    (Rule::Carry, REHEARSE, "a [[carry]] that does not fit the schemas before and after, or is needed"),
    (Rule::SyncTable, REHEARSE, "a [sync.TABLE] that cannot be"),
    (Rule::Renewed, REHEARSE, "a backfill fills a column of a table that exchanges rows, which gets another id by it"),
    (Rule::OwnRow, REHEARSE, "a backfill or key of a table that exchanges rows is computed from more than its row, as SQLite reads it"),
    (Rule::NoWayUp, REHEARSE, "columns that a row of an older version gets from nowhere, in a table that exchanges rows"),
    (Rule::NotAtServer, REHEARSE, "a unique index of a table that exchanges rows, to which only the device can see"),
    (Rule::NullableKey, REHEARSE, "a key column that may be NULL, in a table that exchanges rows"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_list_is_that_of_the_documentation_and_no_code_stands_for_two_rules() {
        let documented = include_str!("../../../../docs/lint.md");
        let listed = list();
        let codes: BTreeSet<&str> = listed.iter().map(|rule| rule.code).collect();
        assert_eq!(codes.len(), listed.len());
        for Listed { code, seen_by, what } in &listed {
            assert!(documented.contains(&format!("| {code} | {seen_by} | {what} |")), "{code} | {seen_by} | {what}");
        }
        assert_eq!(documented.matches("| WB").count(), listed.len());
    }
}
