//! Which tools' trackers a file has. Several tools share a table's name, and some let it be configured, so the columns
//! decide. Pure.
//!
//! Names and columns are those of the tools' own sources, and of the files that the tools wrote for
//! `tests/fixtures/trackers`.

use super::past::Tool;

/// A table as the file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Table {
    /// Its name.
    pub name: String,
    /// Its columns, lower case.
    pub columns: Vec<String>,
}

/// How a tracker looks.
struct Look {
    tool: Tool,
    /// Its name, unless it was configured.
    table: &'static str,
    /// Columns that it always has.
    has: &'static [&'static str],
    /// Columns that some versions of the tool add.
    may_have: &'static [&'static str],
    /// Whether its columns are a signature of their own, so that any name will do.
    by_columns: bool,
}

const fn look(tool: Tool, table: &'static str, has: &'static [&'static str]) -> Look {
    Look { tool, table, has, may_have: &[], by_columns: false }
}

const fn signature(tool: Tool, table: &'static str, has: &'static [&'static str]) -> Look {
    Look { by_columns: true, ..look(tool, table, has) }
}

const LOOKS: [Look; 22] = [
    signature(Tool::Sqlx, "_sqlx_migrations", &["version", "description", "installed_on", "success", "checksum", "execution_time"]),
    signature(Tool::Refinery, "refinery_schema_history", &["version", "name", "applied_on", "checksum"]),
    look(Tool::Diesel, "__diesel_schema_migrations", &["version", "run_on"]),
    look(Tool::GolangMigrate, "schema_migrations", &["version", "dirty"]),
    signature(Tool::Goose, "goose_db_version", &["id", "version_id", "is_applied", "tstamp"]),
    look(Tool::SqlMigrate, "gorp_migrations", &["id", "applied_at"]),
    look(Tool::Dbmate, "schema_migrations", &["version"]),
    signature(
        Tool::Flyway,
        "flyway_schema_history",
        &["installed_rank", "version", "description", "type", "script", "checksum", "installed_by", "installed_on", "execution_time", "success"],
    ),
    Look {
        may_have: &["description", "comments", "tag", "liquibase", "contexts", "labels", "deployment_id"],
        ..signature(Tool::Liquibase, "databasechangelog", &["id", "author", "filename", "dateexecuted", "orderexecuted", "exectype", "md5sum"])
    },
    look(Tool::Alembic, "alembic_version", &["version_num"]),
    look(Tool::Django, "django_migrations", &["id", "app", "name", "applied"]),
    signature(
        Tool::Prisma,
        "_prisma_migrations",
        &["id", "checksum", "finished_at", "migration_name", "logs", "rolled_back_at", "started_at", "applied_steps_count"],
    ),
    look(Tool::TypeOrm, "migrations", &["id", "timestamp", "name"]),
    signature(Tool::Knex, "knex_migrations", &["id", "name", "batch", "migration_time"]),
    Look { may_have: &["name", "applied_at"], ..look(Tool::Drizzle, "__drizzle_migrations", &["id", "hash", "created_at"]) },
    look(Tool::Kysely, "kysely_migration", &["name", "timestamp"]),
    signature(Tool::EfCore, "__efmigrationshistory", &["migrationid", "productversion"]),
    Look {
        may_have: &["type", "execution_time", "error_stmt", "hash", "partial_hashes", "operator_version"],
        ..signature(Tool::Atlas, "atlas_schema_revisions", &["version", "description", "applied", "total", "executed_at", "error"])
    },
    signature(Tool::Yoyo, "_yoyo_migration", &["migration_hash", "migration_id", "applied_at_utc"]),
    look(Tool::Grdb, "grdb_migrations", &["identifier"]),
    look(Tool::Room, "room_master_table", &["id", "identity_hash"]),
    Look {
        may_have: &["id", "appliedat", "errormessage", "attempts", "clientid", "createdat", "updatedat"],
        ..look(Tool::Seed, "client_migration_status", &["migrationname", "applied"])
    },
];

/// Where the seed's clients keep what came from their server.
pub(super) const SEED_LIST: &str = "client_migration";

/// Every tracker among `tables`, with the name of its table.
pub(super) fn recognise(tables: &[Table]) -> Vec<(Tool, &str)> {
    let rails = tables.iter().any(|t| t.name.eq_ignore_ascii_case("ar_internal_metadata"));
    let mut found: Vec<(Tool, &str)> = tables
        .iter()
        .filter_map(|table| {
            let look = LOOKS.iter().find(|look| look.fits(table))?;
            Some((if look.tool == Tool::Dbmate && rails { Tool::Rails } else { look.tool }, table.name.as_str()))
        })
        .collect();
    // The seed's list alone: an older client kept its flag there.
    let seed = |name: &str| tables.iter().find(|t| t.name.eq_ignore_ascii_case(name));
    if !found.iter().any(|(tool, _)| *tool == Tool::Seed)
        && let Some(list) = seed(SEED_LIST).filter(|t| ["migrationname", "clientapplied"].iter().all(|c| t.columns.iter().any(|has| has == c)))
    {
        found.push((Tool::Seed, list.name.as_str()));
    }
    found
}

impl Look {
    fn fits(&self, table: &Table) -> bool {
        let has = |column: &&str| table.columns.iter().any(|c| c == *column);
        let columns = self.has.iter().all(has) && table.columns.iter().all(|c| self.has.contains(&c.as_str()) || self.may_have.contains(&c.as_str()));
        let name = table.name.to_ascii_lowercase();
        // Few columns are no signature: an application's own `(id, timestamp, name)` is no tracker.
        let named = name == self.table || (self.by_columns || self.has.len() > 1) && name.contains("migration");
        columns && (named || self.by_columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        let (name, columns) = text.trim_end_matches(')').split_once('(').unwrap();
        Table { name: name.to_owned(), columns: columns.split(',').map(|c| c.trim().to_ascii_lowercase()).collect() }
    }

    #[track_caller]
    fn check(tables: &[&str], want: &[(Tool, &str)]) {
        let tables: Vec<Table> = tables.iter().map(|t| table(t)).collect();
        assert_eq!(recognise(&tables), want);
    }

    #[test]
    fn three_tools_share_a_table_name_and_their_columns_tell_them_apart() {
        check(&["schema_migrations(version)"], &[(Tool::Dbmate, "schema_migrations")]);
        check(&["schema_migrations(version, dirty)"], &[(Tool::GolangMigrate, "schema_migrations")]);
        check(&["schema_migrations(version)", "ar_internal_metadata(key, value, created_at, updated_at)"], &[(Tool::Rails, "schema_migrations")]);
        check(&["schema_migrations(version, note)"], &[]);
    }

    #[test]
    fn a_configured_name_is_known_by_its_columns_where_they_are_a_signature() {
        check(&["my_history(version, name, applied_on, checksum)"], &[(Tool::Refinery, "my_history")]);
        check(&["typeorm_migrations(id, timestamp, name)"], &[(Tool::TypeOrm, "typeorm_migrations")]);
        check(&["visits(id, timestamp, name)"], &[]);
        check(&["hashes(id, hash, created_at)"], &[]);
    }

    #[test]
    fn what_a_tool_added_later_is_still_its_tracker_and_more_is_not() {
        check(&["__drizzle_migrations(id, hash, created_at, name)"], &[(Tool::Drizzle, "__drizzle_migrations")]);
        check(&["__drizzle_migrations(id, hash, created_at, colour)"], &[]);
        check(
            &["DATABASECHANGELOG(ID, AUTHOR, FILENAME, DATEEXECUTED, ORDEREXECUTED, EXECTYPE, MD5SUM, TAG)"],
            &[(Tool::Liquibase, "DATABASECHANGELOG")],
        );
    }

    #[test]
    fn the_seeds_status_counts_before_its_list() {
        let list = "client_migration(id, timestamp, migrationName, upQueries, downQueries, clientApplied)";
        let status = "client_migration_status(migrationName, applied, appliedAt, clientId, errorMessage, attempts)";
        check(&[list, status], &[(Tool::Seed, "client_migration_status")]);
        check(&[list], &[(Tool::Seed, "client_migration")]);
    }
}
