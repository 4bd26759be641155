//! Whether an expression can be computed again elsewhere from its row alone, and which columns an UPDATE sets. SQLite says
//! so: its authorizer is asked for all that a statement reads, calls and sets while it is compiled
//! (<https://sqlite.org/c3ref/set_authorizer.html>), on a database that has this one table and no rows.
//!
//! What a date function says of the machine (`'now'`) is no function but an argument, which no compiler looks at; that is
//! WB022's.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use rusqlite::{
    Connection,
    hooks::{AuthAction, AuthContext, Authorization},
};

use crate::migrate::rows::table::quote;

/// What a backfill fills.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filled {
    /// Its table, as the step names it.
    pub table: String,
    /// The columns that it sets, as the schema spells them.
    pub columns: Vec<String>,
    /// What it depends on besides its row.
    pub refused: Vec<String>,
    /// The text that makes the table as the step finds it.
    pub create: String,
    /// All columns that it has there, without those that are generated.
    pub names: Vec<String>,
}

/// What a compiler saw.
#[derive(Default)]
struct Saw {
    columns: Vec<String>,
    refused: BTreeSet<String>,
}

/// Compiles `UPDATE table SET set WHERE filter` on an empty copy of the table that `create` makes. `None` where it does not
/// compile for another reason than what it reads: that is said with its place when it runs.
pub fn filled(table: &str, create: &str, set: &str, filter: &str) -> Option<Filled> {
    let mut connection = Connection::open_in_memory().ok()?;
    connection.execute_batch(create).ok()?;
    let names = names(&connection, table).ok()?;
    let unsteady = unsteady(&connection).ok()?;
    let saw = Arc::new(Mutex::new(Saw::default()));
    let (judge, own) = (Arc::clone(&saw), table.to_ascii_lowercase());
    let look = move |context: AuthContext<'_>| {
        let mut saw = judge.lock().unwrap_or_else(PoisonError::into_inner);
        match context.action {
            AuthAction::Update { column_name, .. } => saw.columns.push(column_name.to_owned()),
            AuthAction::Select => _ = saw.refused.insert("it has a SELECT of its own".to_owned()),
            AuthAction::Function { function_name } if unsteady.contains(&function_name.to_ascii_lowercase()) => {
                saw.refused.insert(format!("{function_name}() does not always give the same"));
            }
            AuthAction::Read { table_name, .. } if !table_name.eq_ignore_ascii_case(&own) => {
                saw.refused.insert(format!("it reads {table_name}"));
            }
            // What the row id is called when no column is it; it is another on each device.
            AuthAction::Read { column_name: "ROWID", .. } => {
                _ = saw.refused.insert("it reads the row id, which is another on each device".to_owned())
            }
            _ => {}
        }
        Authorization::Allow
    };
    connection.authorizer(Some(look)).ok()?;
    let sql = format!("UPDATE {} SET {set} WHERE {filter}", quote(table));
    let failed = connection.prepare(&sql).err().map(|error| error.to_string());
    let mut saw = std::mem::take(&mut *saw.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(what) = failed {
        // The one table that is there is its own.
        let other = what.split_once("no such table: ").map(|(_, rest)| rest.split([' ', ',']).next().unwrap_or_default().to_owned());
        saw.refused.insert(format!("it reads {}", other?));
    }
    saw.columns.dedup();
    let refused = saw.refused.into_iter().collect();
    Some(Filled { table: table.to_owned(), columns: saw.columns, refused, create: create.to_owned(), names })
}

fn names(connection: &Connection, table: &str) -> rusqlite::Result<Vec<String>> {
    connection.prepare("SELECT name FROM pragma_table_xinfo(?1) WHERE hidden = 0")?.query_map([table], |row| row.get(0))?.collect()
}

/// What an expression over a row of that table depends on besides it; nothing where it does not compile.
pub fn depends(table: &str, create: &str, column: &str, expression: &str) -> Vec<String> {
    filled(table, create, &format!("{} = ({expression})", quote(column)), "1").map(|f| f.refused).unwrap_or_default()
}

/// Functions that SQLite itself does not call deterministic, and those of the clock, which it does within one statement.
fn unsteady(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    const DETERMINISTIC: i64 = 0x800; // SQLITE_DETERMINISTIC
    const CLOCK: [&str; 3] = ["current_timestamp", "current_time", "current_date"];
    const LIBRARY: [&str; 4] = ["sqlite_version", "sqlite_source_id", "sqlite_compileoption_used", "sqlite_compileoption_get"];
    // Aggregates stand in a SELECT only, and some have a namesake that is none.
    let sql = "SELECT lower(name) FROM pragma_function_list WHERE type = 's' GROUP BY lower(name) HAVING max(flags & ?1) = 0";
    let mut statement = connection.prepare(sql)?;
    let mut names: BTreeSet<String> = statement.query_map([DETERMINISTIC], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    names.extend(CLOCK.iter().chain(&LIBRARY).map(|name| (*name).to_owned()));
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CREATE: &str = "CREATE TABLE \"My notes\"(id INTEGER PRIMARY KEY, title TEXT, slug TEXT, at TEXT)";

    fn check(set: &str, filter: &str, columns: &[&str], refused: &[&str]) {
        let filled = filled("My notes", CREATE, set, filter).unwrap();
        assert_eq!(filled.columns, columns, "{set}");
        assert_eq!(filled.refused.len(), refused.len(), "{set}: {:?}", filled.refused);
        for (said, word) in filled.refused.iter().zip(refused) {
            assert!(said.contains(word), "{set}: {said}");
        }
    }

    #[test]
    fn sqlite_says_which_columns_are_set_and_what_is_not_the_rows_own() {
        check("slug = lower(title) || id", "slug IS NULL", &["slug"], &[]);
        check("\"SLUG\" = 'select random()', [at] = title", "1", &["slug", "at"], &[]);
        check("(slug, at) = (title, 'x')", "title GLOB 'a*' AND rowid > 3", &["slug", "at"], &[]);
        check("slug = date(at) || printf('%d', id)", "1", &["slug"], &[]);
        check("slug = hex(RANDOMBLOB(4))", "random() > 0", &["slug"], &["random()", "randomblob()"]);
        check("slug = last_insert_rowid() + changes()", "1", &["slug"], &["changes", "last_insert_rowid"]);
        check("slug = CURRENT_TIMESTAMP", "1", &["slug"], &["current_timestamp"]);
        check("slug = (SELECT max(title) FROM \"My notes\")", "1", &["slug"], &["SELECT of its own"]);
        check("slug = title", "EXISTS (SELECT 1 FROM tags)", &["slug"], &["reads tags"]);
        check("slug = title", "id IN tags", &["slug"], &["reads tags"]);
        let keyless = filled("k", "CREATE TABLE k(a, b)", "b = rowid", "1").unwrap();
        assert!(keyless.refused[0].contains("row id"), "{:?}", keyless.refused);
        assert_eq!(filled("My notes", CREATE, "nothing = 1", "1"), None);
        assert_eq!(depends("My notes", CREATE, "slug", "lower(title)"), [""; 0]);
        assert_eq!(depends("My notes", CREATE, "slug", "random()").len(), 1);
    }
}
