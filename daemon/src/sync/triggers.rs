//! The triggers that note what the application changes. Pure.
//!
//! Their text is parsed by the application's library whenever it opens the file, so its grammar is that of SQLite 3.8.2,
//! with functions that are built in and allowed under `trusted_schema = OFF`. They write nothing but plain rows of the
//! journal: an outer conflict clause replaces an inner one, and a row id that is not given cannot conflict.

use whimbrel_shared::sql::quote;

use super::shape::{Captured, DataColumn, KeyColumn, LAST_BIT, Mode, Probe};

/// What the names of our triggers begin with.
pub const PREFIX: &str = "_whimbrel_capture_";

/// Milliseconds since 1970, on every SQLite. Rounded: the fraction of a day is off by a few hundredths of a millisecond.
const NOW_MS: &str = "CAST((julianday('now')-2440587.5)*86400000+0.5 AS INTEGER)";

/// `-2` in a mask: the row with this key may be gone.
const SUSPECT: i64 = crate::store::journal::SUSPECT;

/// One trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Its name.
    pub name: String,
    /// Its text, exactly as `sqlite_schema` keeps it.
    pub sql: String,
}

/// The triggers of a table.
pub fn triggers(table: &Captured) -> Vec<Trigger> {
    let everything = match table.mode {
        Mode::Mask => table.everything(),
        Mode::KeyOnly => 0,
    };
    let moved = any(table.key.iter().map(key_moved));
    let changed = match table.mode {
        Mode::Mask => format!("CASE WHEN {moved} THEN {everything} ELSE {} END", changed_bits(&table.columns)),
        Mode::KeyOnly => "0".to_owned(),
    };
    let name = quote(&table.name);
    let mut made = vec![
        trigger(table, "ai", &format!("AFTER INSERT ON {name}"), &[note(table, "NEW", &everything.to_string(), "")]),
        trigger(
            table,
            "au",
            &format!("AFTER UPDATE ON {name}"),
            &[note(table, "OLD", &SUSPECT.to_string(), &moved), note(table, "NEW", &changed, "")],
        ),
        trigger(table, "ad", &format!("AFTER DELETE ON {name}"), &[note(table, "OLD", &SUSPECT.to_string(), "")]),
    ];
    if !table.probes.is_empty() {
        let inserting: Vec<_> = table.probes.iter().map(|p| probe(table, p, "NEW")).collect();
        let updating: Vec<_> = table.probes.iter().map(|p| probe(table, p, "OLD")).collect();
        let of: Option<Vec<String>> = table.probes.iter().map(|p| p.of.clone()).collect::<Option<Vec<_>>>().map(|lists| lists.concat());
        let of = of.map_or_else(String::new, |mut columns| {
            columns.sort_unstable();
            columns.dedup();
            format!(" OF {}", columns.iter().map(|c| quote(c)).collect::<Vec<_>>().join(", "))
        });
        made.push(trigger(table, "bi", &format!("BEFORE INSERT ON {name}"), &inserting));
        made.push(trigger(table, "bu", &format!("BEFORE UPDATE{of} ON {name}"), &updating));
    }
    made
}

fn trigger(table: &Captured, what: &str, when: &str, statements: &[String]) -> Trigger {
    let name = format!("{PREFIX}{}_{what}", table.id);
    Trigger { sql: format!("CREATE TRIGGER {name} {when} BEGIN {}; END", statements.join("; ")), name }
}

/// A row of the journal with the key of `row` (NEW or OLD).
fn note(table: &Captured, row: &str, mask: &str, condition: &str) -> String {
    let values: Vec<_> = table.key.iter().map(|k| format!("{row}.{}", quote(&k.name))).collect();
    let values = format!("{}, {}, {mask}, {NOW_MS}", table.id, values.join(", "));
    let values = if condition.is_empty() { format!("VALUES({values})") } else { format!("SELECT {values} WHERE {condition}") };
    format!("INSERT INTO _whimbrel_journal({}) {values}", journal_columns(table))
}

fn journal_columns(table: &Captured) -> String {
    let keys: String = (1..=table.key.len()).map(|n| format!("k{n}, ")).collect();
    format!("tab, {keys}mask, wall_ms")
}

/// Suspects the rows that the new row collides with in one index, but for the row that is written itself: in a BEFORE
/// INSERT that is the row with the new key, in a BEFORE UPDATE the one with the old.
fn probe(table: &Captured, probe: &Probe, own: &str) -> String {
    let name = quote(&table.name);
    let values: Vec<_> = table.key.iter().map(|k| format!("{name}.{}", quote(&k.name))).collect();
    let mut conditions: Vec<_> = probe.terms.iter().map(|(there, new)| format!("{there} = {new}")).collect();
    conditions.extend(probe.condition.iter().map(|c| format!("({c})")));
    let others = table.key.iter().map(|k| {
        let collate = if k.collated || k.is_loose() { format!(" COLLATE {}", k.collation.name()) } else { String::new() };
        format!("{name}.{0} IS NOT {own}.{0}{collate}", quote(&k.name))
    });
    // A row id that SQLite has yet to choose reads as -1 in a BEFORE INSERT.
    let unknown = (table.row_id && own == "NEW").then(|| format!("NEW.{} = -1", quote(&table.key[0].name)));
    conditions.push(any(others.chain(unknown)));
    format!(
        "INSERT INTO _whimbrel_journal({}) SELECT {}, {}, {SUSPECT}, {NOW_MS} FROM {name} WHERE {}",
        journal_columns(table),
        table.id,
        values.join(", "),
        conditions.join(" AND ")
    )
}

/// Whether the value of a key column is another, to the byte.
fn key_moved(column: &KeyColumn) -> String {
    differs(&column.name, column.collated, column.untyped)
}

/// Bytes are compared where the column's collation would take different texts for the same, and storage classes where the
/// column keeps 1 and 1.0 apart: only in a column without a type can both stand. (With INTEGER affinity they can for the
/// one value -2^63, and in a column without a type 0.0 and -0.0 can; neither is told apart here.)
fn differs(name: &str, collated: bool, untyped: bool) -> String {
    let name = quote(name);
    let collate = if collated { " COLLATE BINARY" } else { "" };
    let differs = format!("OLD.{name} IS NOT NEW.{name}{collate}");
    if untyped { format!("({differs} OR typeof(OLD.{name})<>typeof(NEW.{name}))") } else { format!("({differs})") }
}

/// The mask of the columns that an UPDATE changed.
fn changed_bits(columns: &[DataColumn]) -> String {
    let differs = |c: &DataColumn| differs(&c.name, c.collated, c.untyped);
    let (own, shared): (Vec<_>, Vec<_>) = columns.iter().partition(|c| c.id < LAST_BIT);
    let mut terms: Vec<String> = own.iter().map(|c| format!("{}<<{}", differs(c), c.id)).collect();
    if !shared.is_empty() {
        // Balanced: a chain of two thousand would be deeper than SQLite's expressions may be.
        terms.push(format!("{}<<{LAST_BIT}", balanced(&shared.iter().map(|c| differs(c)).collect::<Vec<_>>(), " OR ")));
    }
    match terms.len() {
        0 => "0".to_owned(),
        _ => terms.iter().map(|t| format!("({t})")).collect::<Vec<_>>().join("|"),
    }
}

fn balanced(terms: &[String], operator: &str) -> String {
    match terms {
        [] => "0".to_owned(),
        [one] => one.clone(),
        _ => {
            let (left, right) = terms.split_at(terms.len() / 2);
            format!("({}{operator}{})", balanced(left, operator), balanced(right, operator))
        }
    }
}

fn any(terms: impl Iterator<Item = String>) -> String {
    format!("({})", terms.collect::<Vec<_>>().join(" OR "))
}
