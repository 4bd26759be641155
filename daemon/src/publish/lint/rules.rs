//! The rules that read a migration's text. Pure.

use std::collections::BTreeSet;

use whimbrel_shared::{
    manifest::{ForeignKeys, Manifest, Step},
    sql::Token,
};

use super::{
    Asked, Deed, Desk, Rule, Script, Weight,
    rows::{Rows, SoFar},
    sql_files, steps,
};
use crate::publish::{
    layout::Layout,
    scan::{self, NeedsEmpty, TableKind},
};

/// Judges one migration, and moves `so_far` past it.
pub(super) fn judge(desk: &mut Desk<'_>, so_far: &mut SoFar, asked: Asked<'_>) {
    let migration = &desk.authored.migration;
    let steps = migration.steps();
    let ups: Vec<Script<'_>> = sql_files(&steps).into_iter().map(|file| Script::read(&migration.files, file)).collect();
    let down = migration.down.as_deref().map(|file| Script::read(&migration.files, file));
    for script in ups.iter().chain(&down) {
        refused(desk, script, asked);
    }

    let mut rows = Rows::new(so_far);
    let mut index = 0;
    for script in &ups {
        for (_, deed) in &script.done {
            rows.follow(index, deed);
            index += 1;
        }
    }
    synced(&migration.manifest, &ups, so_far);
    schema(desk, &ups, so_far, &rows);
    changed_rows(desk, &ups, so_far, &rows);
    steps::judge(desk, &steps, so_far, &rows);
    unused(desk);
    let only_sql = steps.iter().all(|step| matches!(step, Step::Sql { .. }));
    if desk.strictness.layout == Layout::Whimbrel && only_sql && ups.iter().all(|script| script.done.is_empty()) {
        let file = ups.first().map_or("up.sql", |script| script.file);
        desk.note(
            Rule::Nothing,
            Weight::Advice,
            file,
            0,
            "nothing is said here, and what is published cannot be filled in later",
            "write what changes",
        );
    }
    so_far.tables = rows.tables();
    so_far.synced.retain(|table| rows.there(table));
}

/// The tables that exchange rows: by their names before the migration and after it, so that no statement passes between.
fn synced(manifest: &Manifest, ups: &[Script<'_>], so_far: &mut SoFar) {
    let lower = |name: &String| name.to_lowercase();
    so_far.synced.extend(manifest.sync.keys().map(lower));
    for (_, deed) in ups.iter().flat_map(|script| &script.done) {
        if let Deed::RenameTable { from, to } = deed
            && so_far.synced.contains(from)
        {
            so_far.synced.insert(to.clone());
        }
    }
    let renamed: Vec<String> =
        manifest.carry.iter().filter(|c| so_far.synced.contains(&lower(&c.table))).filter_map(|c| c.to.as_ref().map(lower)).collect();
    so_far.synced.extend(renamed);
    for (table, _) in manifest.sync.iter().filter(|(_, sync)| sync.stop.is_some()) {
        so_far.synced.remove(&lower(table));
    }
}

/// What the engine will not run, up or down.
fn refused(desk: &mut Desk<'_>, script: &Script<'_>, asked: Asked<'_>) {
    for (statement, deed) in &script.done {
        let at = statement.at();
        let rule = match deed {
            Deed::Pragma { .. } => Some((Rule::Pragma, "take the line out; the application sets this when it opens the file")),
            Deed::Transaction(_) => {
                Some((Rule::Transaction, "take the line out: a migration is one transaction, which is undone whole when it fails"))
            }
            Deed::WholeFile(word) if word == "vacuum" => {
                Some((Rule::WholeFile, "take it out; the application, or a person, runs VACUUM when nothing else is going on"))
            }
            Deed::WholeFile(_) => Some((Rule::WholeFile, "take it out; a migration changes the one file it is for")),
            _ => None,
        };
        if let Some((rule, remedy)) = rule
            && let Some(why) = asked(statement.text(script.text))
        {
            desk.note(rule, Weight::Always, script.file, at, format!("this will be refused: {why}"), remedy);
        }
        let ours = statement.tokens.iter().find(|t| matches!(&t.token, Token::Word(w) | Token::Quoted(w) if w.starts_with("_whimbrel_")));
        if let Some(name) = ours {
            desk.note(
                Rule::Reserved,
                Weight::Always,
                script.file,
                name.at,
                format!("{} is a name that belongs to whimbrel", name.token.text()),
                "choose another name; names that begin with _whimbrel_ are its bookkeeping in the same file",
            );
        }
    }
}

/// Tables, columns and indexes.
fn schema(desk: &mut Desk<'_>, ups: &[Script<'_>], so_far: &SoFar, rows: &Rows) {
    let lost = rows.lost();
    let mut added: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut changed: BTreeSet<&str> = BTreeSet::new();
    let mut legacy = false;
    let all = ups.iter().flat_map(|script| script.done.iter().map(move |done| (script, done)));
    let kept = |before: usize, table: &str, column: &str| {
        let statements = ups.iter().flat_map(|script| &script.done).take(before);
        statements.into_iter().any(|(statement, _)| scan::keeps(statement, table, column))
    };
    for (index, (script, (statement, deed))) in all.enumerate() {
        let (file, at) = (script.file, statement.at());
        let old = |table: &str| so_far.tables.contains_key(table);
        // A table that stands at the end under its old name, and was made here, was rebuilt.
        let rebuilt = |table: &str| old(table) && rows.made.contains(table);
        match deed {
            Deed::DropTable { table } => {
                if let Some((_, gone)) = lost.iter().find(|(dropped, _)| *dropped == index) {
                    desk.note(
                        Rule::DropTable,
                        Weight::Destructive,
                        file,
                        at,
                        format!("the rows of {} go for good", gone.join(", ")),
                        "copy them to another table first, or say that it is meant: destructive = true in migration.toml",
                    );
                }
                if desk.authored.migration.manifest.foreign_keys == ForeignKeys::On && old(table) {
                    desk.note(
                        Rule::DropUnderCascades,
                        Weight::Always,
                        file,
                        at,
                        format!("{table} is dropped while foreign_keys = \"on\": cascades would take the rows that refer to it along"),
                        "leave foreign_keys = \"off\", and delete what should go in a migration of its own",
                    );
                }
            }
            Deed::DropColumn { table, column } if !added.contains(&(table.as_str(), column.as_str())) && !kept(index, table, column) => desk.note(
                Rule::DropColumn,
                Weight::Destructive,
                file,
                at,
                format!("the values of {table}.{column} go for good"),
                "stop using the column first; then say that it is meant: destructive = true in migration.toml",
            ),
            Deed::RenameTable { from, to } if old(from) && !rows.there(from) && rows.there(to) => desk.note(
                Rule::Rename,
                Weight::Advice,
                file,
                at,
                format!("an app that is running still says {from}, and fails when it becomes {to}"),
                "set min_app in migration.toml, or keep a view of the old name for a release",
            ),
            Deed::RenameTable { from, to } if old(from) && rows.made.contains(from) && !legacy && !rows.there(to) => desk.note(
                Rule::RenameFirst,
                Weight::Advice,
                file,
                at,
                format!("renaming {from} first makes every reference to it point to {to}, which then goes"),
                format!("make the new table under another name, copy, drop {from}, and rename the new one (lang_altertable.html, section 7)"),
            ),
            Deed::RenameColumn { table, from, to } if old(table) && !added.contains(&(table.as_str(), from.as_str())) => desk.note(
                Rule::Rename,
                Weight::Advice,
                file,
                at,
                format!("an app that is running still says {table}.{from}, and fails when it becomes {to}"),
                "set min_app in migration.toml, or add the new column, fill it, and drop the old one a release later",
            ),
            Deed::AddColumn { table, column, needs_empty } => {
                added.insert((table, column));
                if let (Some(why), true) = (needs_empty, old(table) && !rebuilt(table)) {
                    let (what, remedy) = match why {
                        NeedsEmpty::NotNull => ("is NOT NULL and has no default", "give it a default, or add it without NOT NULL and fill it"),
                        NeedsEmpty::ComputedDefault => {
                            ("has a default that is computed", "add it without that default and fill it, or rebuild the table")
                        }
                    };
                    desk.note(
                        Rule::NeedsEmptyTable,
                        Weight::OursOnly,
                        file,
                        at,
                        format!("{table}.{column} {what}: SQLite adds such a column to an empty table only, so it fails wherever there are rows"),
                        remedy,
                    );
                }
            }
            Deed::CreateUniqueIndex { table } if old(table) && !rebuilt(table) && !changed.contains(table.as_str()) => desk.note(
                Rule::UniqueOverRows,
                Weight::Advice,
                file,
                at,
                format!("the rows of {table} that are there already may hold the same value twice, and then this fails"),
                "delete or change the doubles in a statement before it",
            ),
            Deed::CreateTrigger { positional } => {
                for (table, at) in positional {
                    desk.note(
                        Rule::PositionalInsert,
                        Weight::Advice,
                        file,
                        *at,
                        format!("the trigger inserts into {table} by position: it breaks when a column is added there"),
                        "name the columns",
                    );
                }
            }
            Deed::Update { table, .. } | Deed::Delete { table, .. } => {
                changed.insert(table);
            }
            Deed::Pragma { name, value } if name == "legacy_alter_table" => {
                legacy = value.as_deref().and_then(scan::switch).unwrap_or(legacy);
            }
            _ => {}
        }
        if matches!(deed, Deed::CreateTable { .. } | Deed::AddColumn { .. }) {
            quoted_defaults(desk, script, statement);
        }
    }
}

fn quoted_defaults(desk: &mut Desk<'_>, script: &Script<'_>, statement: &scan::Statement) {
    for pair in statement.tokens.windows(2) {
        if pair[0].token.is("default") && script.text[pair[1].at..].starts_with('"') {
            desk.note(
                Rule::QuotedDefault,
                Weight::Advice,
                script.file,
                pair[1].at,
                "double quotes are for names; SQLite takes this default for text only because it forgives it",
                "write it in single quotes",
            );
        }
    }
}

/// Whole tables rewritten or emptied, and rows of synced tables.
fn changed_rows(desk: &mut Desk<'_>, ups: &[Script<'_>], so_far: &SoFar, rows: &Rows) {
    let mut added: BTreeSet<(&str, &str)> = BTreeSet::new();
    let mut made: BTreeSet<&str> = BTreeSet::new();
    let all: Vec<_> = ups.iter().flat_map(|script| script.done.iter().map(move |done| (script, done))).collect();
    for (index, (script, (statement, deed))) in all.iter().enumerate() {
        let (file, at) = (script.file, statement.at());
        // A table made here has no rows of anybody's; a virtual one is an index that is filled again.
        let old = |table: &str| so_far.tables.get(table).is_some_and(|kind| *kind == TableKind::Ordinary) && !rows.made.contains(table);
        match deed {
            Deed::AddColumn { table, column, .. } => {
                added.insert((table, column));
            }
            Deed::CreateTable { table, .. } => {
                made.insert(table);
            }
            Deed::RenameTable { from, to } if made.remove(from.as_str()) => {
                made.insert(to);
            }
            Deed::DropTable { table } => {
                made.remove(table.as_str());
            }
            Deed::Update { table, columns, bounded: false, .. } if old(table) => {
                let new = columns.iter().all(|column| added.contains(&(table.as_str(), column.as_str())));
                let (weight, what) = if new {
                    (Weight::Advice, format!("every row of {table} is rewritten under one lock"))
                } else {
                    (Weight::Destructive, format!("every row of {table} loses its {}", columns.join(", ")))
                };
                desk.note(
                    Rule::UpdateAll,
                    weight,
                    file,
                    at,
                    what,
                    if new {
                        "for a large table use a `backfill` step, which goes on while the app writes"
                    } else {
                        "add a WHERE, use a `backfill` step, or say that it is meant: destructive = true in migration.toml"
                    },
                );
            }
            Deed::Delete { table, bounded: false } if old(table) => desk.note(
                Rule::DeleteAll,
                Weight::Destructive,
                file,
                at,
                format!("every row of {table} goes for good"),
                "add a WHERE, or say that it is meant: destructive = true in migration.toml",
            ),
            _ => {}
        }
        let table = match deed {
            Deed::Insert { into: table, .. } | Deed::Update { table, .. } | Deed::Delete { table, .. } => table,
            _ => continue,
        };
        // Every device copies the same, and so does the server. What changes values on the way belongs into a backfill,
        // in the table that is made as in the one that it replaces.
        let copies = matches!(deed, Deed::Insert { from, .. } if !from.is_empty()) && made.contains(table.as_str());
        let later = all.iter().skip(index + 1).map(|(_, (_, deed))| deed);
        let synced = so_far.synced.contains(table) || so_far.synced.contains(ends_as(later, table));
        if synced && !copies {
            desk.note(
                Rule::SyncedRows,
                Weight::Always,
                file,
                at,
                format!("{table} exchanges rows, and this changes them without anyone else learning of it"),
                "use a `backfill` step for values, a `load` step for rows, or `carry` for what moves",
            );
        }
    }
}

/// What a table is called after these statements.
fn ends_as<'d>(later: impl Iterator<Item = &'d Deed>, table: &'d str) -> &'d str {
    later.fold(table, |name, deed| match deed {
        Deed::RenameTable { from, to } if from == name => to,
        _ => name,
    })
}

fn unused(desk: &mut Desk<'_>) {
    if desk.strictness.layout != Layout::Whimbrel {
        return;
    }
    let unused: Vec<&String> = desk.authored.unused.iter().filter(|file| file.ends_with(".sql")).collect();
    for file in unused {
        desk.note(
            Rule::UnusedFile,
            Weight::Advice,
            file,
            0,
            format!("no step runs {file}"),
            format!("name it in migration.toml ([[step]] sql = {file:?}), or take it away"),
        );
    }
}
