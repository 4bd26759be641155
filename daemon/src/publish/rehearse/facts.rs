//! What lint wants to know of a schema as it is now.

use rusqlite::Connection;
use whimbrel_shared::fingerprint::Schema;

use super::each;
use crate::{migrate::rows::table::affinity, publish::lint::Facts};

/// Reads them. `schema` is what the engine read of the same file.
pub(super) fn read(connection: &Connection, schema: &Schema) -> rusqlite::Result<Facts> {
    let mut facts = Facts { schema: schema.clone(), ..Facts::default() };
    // One table-valued query each: thousands of small pragmas would be slower than the migrations.
    let ordinary =
        "FROM main.sqlite_schema AS t, {} WHERE t.type = 'table' AND t.name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND t.sql NOT LIKE 'CREATE VIRTUAL%'";
    each(connection, &format!("SELECT lower(t.name), lower(c.name), c.type {}", ordinary.replace("{}", "pragma_table_xinfo(t.name) AS c")), |row| {
        let (table, column): (String, String) = (row.get(0)?, row.get(1)?);
        facts.affinities.insert((table.clone(), column.clone()), affinity(&row.get::<_, String>(2)?));
        facts.columns.entry(table).or_default().insert(column);
        Ok(())
    })?;
    each(connection, "SELECT lower(name) FROM pragma_table_list WHERE schema = 'main' AND strict", |row| {
        facts.strict.insert(row.get(0)?);
        Ok(())
    })?;
    each(
        connection,
        &format!("SELECT DISTINCT lower(t.name), lower(k.\"table\") {}", ordinary.replace("{}", "pragma_foreign_key_list(t.name) AS k")),
        |row| {
            let (child, parent): (String, String) = (row.get(0)?, row.get(1)?);
            if !facts.columns.contains_key(&parent) {
                facts.dangling.insert((child, parent));
            }
            Ok(())
        },
    )?;
    Ok(facts)
}
