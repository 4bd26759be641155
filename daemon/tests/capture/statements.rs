//! Random statements of an application.

use fastrand::Rng;

use crate::schema::{Schema, Table};

const VALUES: [&str; 26] = [
    "NULL",
    "0",
    "1",
    "2",
    "3",
    "1.0",
    "2.0",
    "0.5",
    "'a'",
    "'A'",
    "'a '",
    "'b'",
    "'B'",
    "'1'",
    "'1.0'",
    "x'61'",
    "x''",
    "''",
    "'gone'",
    "'Lee'",
    "'lee'",
    "1e300",
    "9007199254740993",
    "-1",
    "zeroblob(300)",
    "'ä'",
];
const OR: [&str; 8] = ["", "", "", " OR REPLACE", " OR REPLACE", " OR IGNORE", " OR FAIL", " OR ABORT"];

/// One statement, and sometimes the next few.
pub(crate) fn statements(rng: &mut Rng, schema: &Schema) -> Vec<String> {
    let table = rng.choice(&schema.tables).unwrap();
    let name = table.name;
    let or: &str = rng.choice(OR).unwrap();
    let one = match rng.u8(..100) {
        0..=34 => insert(rng, table, or),
        35..=39 => format!("INSERT{or} INTO {name}({0}) SELECT {0} FROM {name} WHERE {1}", names(table), filter(rng, table)),
        40..=47 => upsert(rng, table),
        48..=69 => update(rng, table, or),
        70..=77 => format!("UPDATE{or} {name} SET {} WHERE {}", moves(rng, table), filter(rng, table)),
        78..=87 => format!("DELETE FROM {name} WHERE {}", filter(rng, table)),
        88 => format!("DELETE FROM {name}"),
        89..=93 => {
            let mut list = vec!["SAVEPOINT s".to_owned()];
            for _ in 0..rng.u8(1..4) {
                list.extend(statements(rng, schema));
            }
            list.push((if rng.bool() { "ROLLBACK TO s" } else { "RELEASE s" }).to_owned());
            list.push("RELEASE s".to_owned());
            return list;
        }
        94..=95 => {
            let mut list = vec!["BEGIN".to_owned()];
            for _ in 0..rng.u8(1..4) {
                list.extend(statements(rng, schema));
            }
            list.push(rng.choice(["COMMIT", "ROLLBACK"]).unwrap().to_owned());
            return list;
        }
        _ => format!("REPLACE INTO {name}({}) VALUES ({})", names(table), row(rng, table)),
    };
    vec![one]
}

fn value(rng: &mut Rng) -> &'static str {
    rng.choice(VALUES).unwrap()
}

/// A value that a key is likely to have.
fn key_value(rng: &mut Rng) -> &'static str {
    if rng.u8(..4) == 0 { value(rng) } else { rng.choice(["1", "2", "3", "'a'", "'A'", "'a '", "1.0", "x'61'"]).unwrap() }
}

fn names(table: &Table) -> String {
    table.columns.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
}

fn row(rng: &mut Rng, table: &Table) -> String {
    let values: Vec<_> = (0..table.columns.len())
        .map(|n| {
            if table.row_id && n == 0 && rng.u8(..4) == 0 {
                "NULL"
            } else if n < table.key {
                key_value(rng)
            } else {
                value(rng)
            }
        })
        .collect();
    values.join(", ")
}

fn insert(rng: &mut Rng, table: &Table, or: &str) -> String {
    let rows: Vec<_> = (0..rng.u8(1..4)).map(|_| format!("({})", row(rng, table))).collect();
    format!("INSERT{or} INTO {}({}) VALUES {}", table.name, names(table), rows.join(", "))
}

fn upsert(rng: &mut Rng, table: &Table) -> String {
    let insert = insert(rng, table, "");
    if rng.bool() { format!("{insert} ON CONFLICT DO NOTHING") } else { format!("{insert} ON CONFLICT DO UPDATE SET {}", set(rng, table)) }
}

/// Several columns at once: a mask that names one of them hides the others.
fn set(rng: &mut Rng, table: &Table) -> String {
    let mut columns: Vec<_> = table.columns[table.key..].iter().map(|(name, _)| name.as_str()).collect();
    rng.shuffle(&mut columns);
    columns.truncate(rng.usize(1..=columns.len()));
    let sets: Vec<_> = columns
        .into_iter()
        .map(|c| match rng.u8(..10) {
            0 => format!("{c} = upper({c})"),
            1 => format!("{c} = lower({c})"),
            2 => format!("{c} = {c} + 1"),
            3 => format!("{c} = CAST({c} AS REAL)"),
            4 => format!("{c} = CAST({c} AS INTEGER)"),
            5 => format!("{c} = {c}"),
            6 => format!("{c} = trim({c})"),
            _ => format!("{c} = {}", value(rng)),
        })
        .collect();
    sets.join(", ")
}

fn update(rng: &mut Rng, table: &Table, or: &str) -> String {
    let (set, filter) = (set(rng, table), filter(rng, table));
    format!("UPDATE{or} {} SET {set} WHERE {filter}", table.name)
}

/// Another key, and maybe more.
fn moves(rng: &mut Rng, table: &Table) -> String {
    let column = format!("k{}", rng.usize(..table.key));
    let to = match rng.u8(..5) {
        0 => format!("upper({column})"),
        1 => format!("{column} + 1"),
        2 => format!("CAST({column} AS REAL)"),
        3 => format!("{column} || ' '"),
        _ => key_value(rng).to_owned(),
    };
    if rng.bool() { format!("{column} = {to}") } else { format!("{column} = {to}, {}", set(rng, table)) }
}

fn filter(rng: &mut Rng, table: &Table) -> String {
    let (column, _) = rng.choice(&table.columns).unwrap();
    match rng.u8(..6) {
        0 => "1".to_owned(),
        1 => format!("{column} IS {}", value(rng)),
        2 => format!("{column} > {}", value(rng)),
        _ => format!("k0 = {}", key_value(rng)),
    }
}
