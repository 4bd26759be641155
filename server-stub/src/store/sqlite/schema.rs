//! Brings the store's own tables to the schema that this binary knows.

use rusqlite::{Connection, TransactionBehavior};

use crate::{secrets::now_ms, store::StoreError};

/// In order; a released one never changes.
const SCHEMAS: [&str; 5] = [
    include_str!("../../../schema/sqlite/001_init.sql"),
    include_str!("../../../schema/sqlite/002_rows.sql"),
    include_str!("../../../schema/sqlite/003_lift.sql"),
    include_str!("../../../schema/sqlite/004_signed.sql"),
    include_str!("../../../schema/sqlite/005_device_tokens.sql"),
];

/// Applies what is missing, each with its row, all in one transaction. A store that knows more than we do is refused.
pub(super) fn upgrade(connection: &mut Connection) -> Result<(), StoreError> {
    let known = i64::try_from(SCHEMAS.len()).unwrap_or(i64::MAX);
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS schema_version (
           version INTEGER NOT NULL PRIMARY KEY, applied_at_ms INTEGER NOT NULL) STRICT",
    )?;
    let found: i64 = tx.query_row("SELECT coalesce(max(version), 0) FROM schema_version", [], |row| row.get(0))?;
    if found > known {
        return Err(StoreError::Newer { found, known });
    }
    for (version, sql) in (1i64..).zip(SCHEMAS) {
        if version > found {
            tx.execute_batch(sql)?;
            tx.execute("INSERT INTO schema_version (version, applied_at_ms) VALUES (?1, ?2)", (version, now_ms()))?;
        }
    }
    tx.commit()?;
    Ok(())
}
