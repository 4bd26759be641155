//! What an author without a `migration.toml` wants of the engine, read from the scripts. Pure.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::manifest::{ForeignKeys, LegacyAlterTable, Manifest};

use crate::publish::scan::{self, Deed};

/// The manifest that `files` mean, where there is none. The same files always give the same one: it is part of what is
/// signed and compared.
pub(super) fn wanted(files: &BTreeMap<String, String>) -> Manifest {
    Manifest {
        foreign_keys: foreign_keys(files.values().map(String::as_str)),
        legacy_alter_table: files.get("down.sql").map_or(LegacyAlterTable::Off, |down| legacy_alter_table(down.as_str())),
        ..Manifest::default()
    }
}

/// Whether cascades are wanted to act: `foreign_keys = ON` stands before any OFF, and nothing is dropped that they could
/// empty. (OFF first, ON last is the frame of a rebuild, which wants the opposite.)
fn foreign_keys<'a>(texts: impl Iterator<Item = &'a str>) -> ForeignKeys {
    let mut asked = Vec::new();
    for text in texts {
        let mut first = None;
        for statement in scan::statements(text) {
            match scan::deed(&statement) {
                Deed::DropTable { .. } => return ForeignKeys::Off,
                Deed::Pragma { name, value } if name == "foreign_keys" => {
                    first = first.or(value.as_deref().and_then(scan::switch));
                }
                _ => {}
            }
        }
        asked.extend(first);
    }
    if asked.contains(&true) && !asked.contains(&false) { ForeignKeys::On } else { ForeignKeys::Off }
}

/// Whether a way down counts on a rename that leaves references alone, as SQLite's did before 3.26 with foreign keys off
/// (<https://www.sqlite.org/lang_altertable.html>, section 2): it puts a table aside, makes the table anew, copies, and
/// drops the one put aside. TypeORM writes every way down like that (its `recreateTable`), without the pragma; today's
/// rename would leave the children pointing to a table that then goes. One real rename among them wants its references
/// to follow, so then the script is left as it is.
pub(crate) fn legacy_alter_table(down: &str) -> LegacyAlterTable {
    let mut aside: BTreeMap<String, String> = BTreeMap::new();
    let mut made_again: BTreeSet<String> = BTreeSet::new();
    let mut dropped: BTreeSet<String> = BTreeSet::new();
    let mut found = false;
    for statement in scan::statements(down) {
        match scan::deed(&statement) {
            // The end of a rebuild the other way round: nobody refers to the new table by its first name.
            Deed::RenameTable { to, .. } if dropped.contains(&to) => {}
            Deed::RenameTable { from, to } => {
                aside.insert(to, from);
            }
            Deed::CreateTable { table, .. } => {
                made_again.insert(table);
            }
            Deed::DropTable { table } => match aside.remove(&table) {
                Some(from) if made_again.remove(&from) => found = true,
                Some(_) => return LegacyAlterTable::Off,
                None => drop(dropped.insert(table)),
            },
            // The author knows, and has said.
            Deed::Pragma { name, .. } if name == "legacy_alter_table" => return LegacyAlterTable::Off,
            _ => {}
        }
    }
    if found && aside.is_empty() { LegacyAlterTable::Down } else { LegacyAlterTable::Off }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_down_that_puts_the_old_table_aside_counts_on_references_that_stay() {
        let check = |down: &str, wanted: LegacyAlterTable| assert_eq!(legacy_alter_table(down), wanted, "{down}");
        let (off, down) = (LegacyAlterTable::Off, LegacyAlterTable::Down);
        let aside = r#"ALTER TABLE "a" RENAME TO "temporary_a"; CREATE TABLE "a" ("id" integer); INSERT INTO "a"("id") SELECT "id" FROM "temporary_a"; DROP TABLE "temporary_a";"#;
        check(aside, down);
        check(&format!("{aside} {}", aside.replace("\"a\"", "\"b\"").replace("_a", "_b")), down);
        // One table, twice.
        check(&format!("{aside} {aside}"), down);
        check(&format!("{aside} CREATE TABLE n(x); INSERT INTO n SELECT x FROM c; DROP TABLE c; ALTER TABLE n RENAME TO c"), down);
        check(&format!("PRAGMA legacy_alter_table = OFF; {aside}"), off);
        check(&format!("{aside} ALTER TABLE c RENAME TO d"), off);
        check("ALTER TABLE a RENAME TO b; CREATE TABLE a(x)", off);
        check("ALTER TABLE a RENAME TO b; DROP TABLE b", off);
        check("CREATE TABLE n(x); DROP TABLE a; ALTER TABLE n RENAME TO a", off);
        check("DROP TABLE a", off);
    }
}
