//! Triggers with a part left out, to see that the test misses it.

use rusqlite::Connection;

/// What is left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// Nothing.
    None,
    /// The triggers that look for rows that REPLACE will delete.
    NoProbe,
    /// Comparing bytes instead of by the column's collation.
    NoCollation,
    /// Comparing storage classes.
    NoType,
}

impl Mutation {
    /// Rewrites the triggers in the file.
    pub(crate) fn apply(self, connection: &Connection) {
        let triggers: Vec<(String, String)> = connection
            .prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger' AND name GLOB '_whimbrel_capture_*'")
            .unwrap()
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
            .unwrap()
            .collect::<Result<_, _>>()
            .unwrap();
        for (name, sql) in triggers {
            let probes = name.ends_with("_bi") || name.ends_with("_bu");
            let changed = match self {
                Self::None => continue,
                Self::NoProbe if probes => String::new(),
                Self::NoProbe => continue,
                Self::NoCollation => sql.replace(" COLLATE BINARY", ""),
                Self::NoType => without_types(&sql),
            };
            connection.execute_batch(&format!("DROP TRIGGER {name}; {changed}")).unwrap();
        }
    }
}

fn without_types(sql: &str) -> String {
    let mut sql = sql.to_owned();
    while let Some(begin) = sql.find(" OR typeof(OLD.") {
        let new = begin + sql[begin..].find("typeof(NEW.").unwrap();
        let end = new + sql[new..].find(')').unwrap() + 1;
        sql.replace_range(begin..end, "");
    }
    sql
}
