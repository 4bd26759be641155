//! The rules that need the schema as a rehearsal left it. Pure: the facts come in.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::{
    fingerprint::Schema,
    manifest::{LegacyAlterTable, Step},
    sql::tokens,
};

use super::{Deed, Desk, Finding, Rule, Script, Strictness, Weight, sql_files};
use crate::publish::{
    layout::{Authored, legacy_alter_table},
    scan,
};

/// What a rehearsal saw of one version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// The schema.
    pub schema: Schema,
    /// Affinities by table and column, both in lower case: `INTEGER`, `TEXT`, `BLOB`, `REAL` or `NUMERIC`.
    pub affinities: BTreeMap<(String, String), &'static str>,
    /// STRICT tables, in lower case.
    pub strict: BTreeSet<String>,
    /// Columns by table, both in lower case.
    pub columns: BTreeMap<String, BTreeSet<String>>,
    /// Tables with a foreign key to a table that is not there: child and parent.
    pub dangling: BTreeSet<(String, String)>,
}

/// Judges what one migration did to the schema.
pub fn after(authored: &Authored, strictness: Strictness, before: &Facts, now: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut desk = Desk { authored, strictness, findings: &mut findings };
    let migration = &authored.migration;
    let steps = migration.steps();
    let ups: Vec<Script<'_>> = sql_files(&steps).into_iter().map(|file| Script::read(&migration.files, file)).collect();
    lost(&mut desk, &ups, before, now);
    columns(&mut desk, &ups, before, now);
    left_behind(&mut desk, &steps, before, now);
    types(&mut desk, &ups, before, now);
    for (child, parent) in now.dangling.difference(&before.dangling) {
        desk.note(
            Rule::DanglingKey,
            Weight::Advice,
            first_file(&ups),
            0,
            format!("afterwards {child} refers to {parent}, and there is no such table: with foreign keys on, every insert into {child} fails"),
            "if the table was renamed before it was rebuilt, make the new one under another name and rename that at the end",
        );
    }
    findings
}

/// The finding about a way down that does not lead back, as the rehearsal says it.
pub fn down(authored: &Authored, strictness: Strictness, what: String) -> Finding {
    let mut findings = Vec::new();
    let mut desk = Desk { authored, strictness, findings: &mut findings };
    let file = authored.migration.down.as_deref().unwrap_or("down.sql");
    let remedy = match legacy_alter_table(authored.migration.file(file).unwrap_or_default()) {
        // A manifest that is written says everything; without one the key would be there already.
        LegacyAlterTable::Down if authored.migration.manifest.legacy_alter_table == LegacyAlterTable::Off => {
            "it renames a table before it makes it again: say legacy_alter_table = \"down\" in migration.toml, and references to it stay"
        }
        LegacyAlterTable::Down | LegacyAlterTable::Off => "correct it, or take it away: without a way down a revert is refused before it begins",
    };
    desk.note(Rule::Down, Weight::OursOnly, file, 0, what, remedy);
    findings.swap_remove(0)
}

/// The finding about an online migration whose way down does not lead back from where it may stop. It is advice: a
/// revision may also go on from there.
pub fn half_way(authored: &Authored, strictness: Strictness, what: &str) -> Finding {
    let mut findings = Vec::new();
    let mut desk = Desk { authored, strictness, findings: &mut findings };
    desk.note(
        Rule::HalfWay,
        Weight::Advice,
        authored.migration.down.as_deref().unwrap_or("down.sql"),
        0,
        format!("where the migration stops half-way, its way down does not lead back {what}"),
        "write it so that it leads back from each step (IF EXISTS helps); or a revision that mends it has to say continues_after",
    );
    findings.swap_remove(0)
}

/// The finding about a backfill that fails on a made-up row. `again`: the row matches after its own change.
pub fn made_up(authored: &Authored, strictness: Strictness, what: &str, again: bool) -> Finding {
    let mut findings = Vec::new();
    let mut desk = Desk { authored, strictness, findings: &mut findings };
    let weight = if again { Weight::OursOnly } else { Weight::Advice };
    let remedy = "let `where` leave such rows out and `set` give each of the others a value; or say on_error = \"collect\" to go on without them";
    desk.note(Rule::MadeUpRow, weight, "migration.toml", 0, what, remedy);
    findings.swap_remove(0)
}

fn first_file<'a>(ups: &[Script<'a>]) -> &'a str {
    ups.first().map_or("up.sql", |script| script.file)
}

/// Columns that a rebuild does not copy, and from which no value is computed.
fn left_behind(desk: &mut Desk<'_>, steps: &[Step], before: &Facts, now: &Facts) {
    for step in steps {
        let Step::Rebuild(rebuild) = step else { continue };
        let table = rebuild.table.to_lowercase();
        let used: BTreeSet<String> = rebuild.values.values().flat_map(|value| tokens(value)).map(|token| token.text()).collect();
        let (Some(old), Some(new)) = (before.columns.get(&table), now.columns.get(&table)) else { continue };
        for column in old.iter().filter(|column| !new.contains(*column) && !used.contains(*column)) {
            desk.note(
                Rule::DropColumn,
                Weight::Destructive,
                &rebuild.file,
                0,
                format!("the values of {table}.{column} go for good"),
                "stop using the column first; then say that it is meant: destructive = true in migration.toml",
            );
        }
    }
}

/// Indexes and triggers that went without being named: DROP TABLE takes them along, and a rebuild has to make them again.
fn lost(desk: &mut Desk<'_>, ups: &[Script<'_>], before: &Facts, now: &Facts) {
    let named: BTreeSet<String> = ups
        .iter()
        .flat_map(|script| &script.done)
        .filter_map(|(_, deed)| match deed {
            Deed::DropObject { kind, name } => Some(format!("{kind} {name}")),
            _ => None,
        })
        .collect();
    let rebuilt: Vec<(&Script<'_>, usize, &String)> = ups
        .iter()
        .flat_map(|script| script.done.iter().map(move |(statement, deed)| (script, statement.at(), deed)))
        .filter_map(|(script, at, deed)| match deed {
            Deed::DropTable { table } if now.columns.contains_key(table) => Some((script, at, table)),
            _ => None,
        })
        .collect();
    let Some((script, at, _)) = rebuilt.first() else {
        return;
    };
    let gone: Vec<&str> = before
        .schema
        .0
        .keys()
        .filter(|object| object.starts_with("index ") || object.starts_with("trigger "))
        .filter(|object| !now.schema.0.contains_key(*object) && !named.contains(*object))
        .map(String::as_str)
        .collect();
    if !gone.is_empty() {
        desk.note(
            Rule::LostObject,
            Weight::Advice,
            script.file,
            *at,
            format!("dropping the table takes along what nobody names: {}", gone.join(", ")),
            "make it again after the rename, or drop it by name if it is not wanted any more",
        );
    }
}

/// Columns of another type than before, in tables that may have rows.
fn types(desk: &mut Desk<'_>, ups: &[Script<'_>], before: &Facts, now: &Facts) {
    for ((table, column), old) in &before.affinities {
        let Some(new) = now.affinities.get(&(table.clone(), column.clone())) else { continue };
        let strict = now.strict.contains(table) && !before.strict.contains(table);
        // A number that becomes another kind of number stays what it is.
        let converts = old != new && *new != "BLOB" && ["TEXT", "BLOB"].iter().any(|text| old == text || new == text);
        let what = match (strict, converts) {
            (true, _) => format!("{table} becomes STRICT: a row whose {column} does not fit its type makes the copy fail"),
            (false, true) => {
                format!("{table}.{column} was {old} and is {new}: values are converted where they can be, and '007' becomes 7 or 7 becomes '7'")
            }
            (false, false) => continue,
        };
        desk.note(
            Rule::TypeChange,
            Weight::Advice,
            first_file(ups),
            0,
            what,
            "look at what the column holds, and convert it in the statement that copies it",
        );
    }
}

/// Columns that a rebuild left out.
fn columns(desk: &mut Desk<'_>, ups: &[Script<'_>], before: &Facts, now: &Facts) {
    let named = |table: &str, column: &str| {
        ups.iter().flat_map(|script| &script.done).any(|(_, deed)| match deed {
            Deed::DropColumn { table: t, column: c } | Deed::RenameColumn { table: t, from: c, .. } => t == table && c == column,
            _ => false,
        }) || ups.iter().flat_map(|script| &script.done).any(|(statement, _)| scan::keeps(statement, table, column))
    };
    for (table, old) in &before.columns {
        let Some(new) = now.columns.get(table) else { continue };
        let gone: Vec<&str> = old.difference(new).map(String::as_str).filter(|column| !named(table, column)).collect();
        if gone.is_empty() {
            continue;
        }
        let at = ups.iter().find_map(|script| {
            let (statement, _) = script.done.iter().find(|(_, deed)| matches!(deed, Deed::DropTable { table: t } if t == table))?;
            Some((script.file, statement.at()))
        });
        let (file, at) = at.unwrap_or((first_file(ups), 0));
        // What came instead may hold the old values under a new name: then it is for a person to see.
        let weight = if new.is_subset(old) { Weight::Destructive } else { Weight::Advice };
        desk.note(
            Rule::DropColumn,
            weight,
            file,
            at,
            format!("the rebuilt {table} has no {} any more", gone.join(", ")),
            "copy the values, or say that it is meant: destructive = true in migration.toml",
        );
    }
}
