//! What a publisher's expression may do to the one row that is there.

use std::collections::BTreeSet;

use rusqlite::{Connection, config::DbConfig, hooks::AuthAction, limits::Limit};
use whimbrel_shared::change::MAX_ROW_BYTES;

/// Longest pattern of LIKE and GLOB, which cost the product of both lengths in one step.
const LONGEST_PATTERN: i32 = 1_000;
/// Functions that reach outside; none is built in, and none is to come in unnoticed.
const OUTSIDE: [&str; 5] = ["load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"];

/// Why an action is refused; none where it may be. `foreign`: whether it is the publisher's expression that is compiled, and
/// not our own statements around it.
pub(super) fn judge(action: &AuthAction<'_>, own: &str, steady: &dyn Fn(&str) -> bool, foreign: bool) -> Option<String> {
    match *action {
        AuthAction::Function { function_name } if steady(function_name) => None,
        AuthAction::Function { function_name } => Some(format!("it calls {function_name}(), which does not always give the same")),
        AuthAction::Read { table_name, .. } | AuthAction::Update { table_name, .. } if table_name.eq_ignore_ascii_case(own) => None,
        AuthAction::Read { table_name, .. } => Some(format!("it reads {table_name}, and only its own row is there")),
        AuthAction::Select if foreign => Some("it has a SELECT of its own, and only its row is there".to_owned()),
        AuthAction::Select => None,
        AuthAction::Insert { table_name } | AuthAction::Delete { table_name } if !foreign && table_name.eq_ignore_ascii_case(own) => None,
        _ => Some("it is more than an expression over its row".to_owned()),
    }
}

/// Nothing but this one table, no row larger than one that is exchanged, no statement larger than a step.
pub(super) fn restrict(connection: &mut Connection) -> rusqlite::Result<()> {
    for (config, on) in [
        (DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true),
        (DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_FKEY, false),
        (DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false),
    ] {
        connection.set_db_config(config, on)?;
    }
    // A row is checked where it lands; here it may be one of which some columns are not said.
    connection.pragma_update(None, "ignore_check_constraints", true)?;
    for (limit, value) in [
        (Limit::SQLITE_LIMIT_LENGTH, i32::try_from(MAX_ROW_BYTES + MAX_ROW_BYTES / 2).unwrap_or(i32::MAX)),
        (Limit::SQLITE_LIMIT_SQL_LENGTH, 1_000_000),
        (Limit::SQLITE_LIMIT_EXPR_DEPTH, 200),
        (Limit::SQLITE_LIMIT_COMPOUND_SELECT, 1),
        (Limit::SQLITE_LIMIT_VDBE_OP, 250_000),
        (Limit::SQLITE_LIMIT_ATTACHED, 0),
        (Limit::SQLITE_LIMIT_LIKE_PATTERN_LENGTH, LONGEST_PATTERN),
        (Limit::SQLITE_LIMIT_TRIGGER_DEPTH, 1),
    ] {
        connection.set_limit(limit, value)?;
    }
    Ok(())
}

/// Functions that SQLite does not call deterministic, those of the clock, and those that reach outside.
pub(super) fn unsteady(connection: &Connection) -> rusqlite::Result<BTreeSet<String>> {
    const DETERMINISTIC: i64 = 0x800; // SQLITE_DETERMINISTIC
    const MORE: [&str; 7] = [
        "current_timestamp",
        "current_time",
        "current_date",
        "sqlite_version",
        "sqlite_source_id",
        "sqlite_compileoption_used",
        "sqlite_compileoption_get",
    ];
    let sql = "SELECT lower(name) FROM pragma_function_list WHERE type = 's' GROUP BY lower(name) HAVING max(flags & ?1) = 0";
    let mut names: BTreeSet<String> = connection.prepare(sql)?.query_map([DETERMINISTIC], |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
    names.extend(MORE.iter().chain(&OUTSIDE).map(|name| (*name).to_owned()));
    Ok(names)
}
