//! What a table becomes: read from the file as it is, and from the author's text, which is run in a database of its own.
//! SQLite writes every text that is used here; none is put together by a parser of ours.

use std::{collections::BTreeSet, time::Duration};

use rusqlite::{Connection, config::DbConfig};
use whimbrel_shared::{
    manifest::Rebuild,
    migration::Migration,
    sql::{Token, spans, tokens},
};

use super::{
    aside,
    facts::{Facts, Reference, Unique},
    side,
};
use crate::migrate::{
    connection::Managed,
    error::{ApplyError, sqlite},
    halt::Halt,
    rows::{
        check_fragment,
        table::{MOST_KEY_COLUMNS, Table, affinity, quote},
    },
    schema::is_ours,
    script::{self, Reading},
};

/// A table or an index under two names: that of the side table, or of the table put aside, and the application's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Text {
    pub(super) kind: String,
    /// What the application calls it.
    pub(super) name: String,
    /// Its text then.
    pub(super) sql: String,
    /// What we call it beside it.
    pub(super) ours: String,
    /// Its text then.
    pub(super) ours_sql: String,
}

/// What a table becomes.
#[derive(Clone, Debug)]
pub struct Shape {
    /// The table as it is.
    pub table: Table,
    /// What it is called at the end.
    pub name: String,
    /// The table that rows are copied into.
    pub side: String,
    /// The table as it was, once another is in its place.
    pub aside: String,
    /// Columns of the side table, each with its value from a row of the table, as SQL.
    pub columns: Vec<(String, String)>,
    /// Which row of the side table belongs to a row: columns of the one and of the other, as SQL.
    pub(super) image: Vec<(String, String)>,
    /// The new table and its indexes.
    pub(super) made: Vec<Text>,
    /// Its triggers.
    pub(super) triggers: Vec<String>,
    /// The old table and its indexes.
    pub(super) put_aside: Vec<Text>,
    /// Indexes and triggers that go, lower case.
    pub(super) drop: BTreeSet<String>,
    /// Whether row ids are never given twice.
    pub(super) autoincrement: bool,
    /// Other rows that an INSERT OR REPLACE of `NEW` would delete without a trigger, as conditions.
    pub(super) rivals: Vec<String>,
    /// The same in the new table.
    pub(super) new_rivals: Vec<String>,
    /// Why not all of them can be told.
    pub(super) unwatchable: Option<String>,
    /// Foreign keys that were not there before, or whose columns are computed.
    pub(super) new_references: Vec<Reference>,
    /// Whether the old table refers to any.
    pub(super) refers: bool,
    /// Columns that go over as they are: old names, lower case.
    pub(super) plain: BTreeSet<String>,
}

impl Shape {
    /// Reads it. Changes nothing.
    pub(super) fn read(managed: &Managed, step: &Rebuild, number: usize, migration: &Migration, place: &str) -> Result<Self, ApplyError> {
        let bad = |why: String| ApplyError::BadStep { place: place.to_owned(), why };
        let table = Table::read(&managed.connection, &step.table)?.ok_or_else(|| bad(format!("there is no table {}", step.table)))?;
        if table.key.is_empty() || table.key.len() > MOST_KEY_COLUMNS {
            return Err(bad(format!("{} has no key that its rows can be walked along", table.name)));
        }
        let reading = "reading the shape of a table";
        let old = Facts::read(&managed.connection, &table.name).map_err(sqlite(reading))?;
        let there = objects(&managed.connection, &table.name).map_err(sqlite(reading))?;

        let scratch = Scratch::new()?;
        scratch.write(migration, step, place)?;
        let authored = scratch.authored(step).map_err(sqlite(reading))?.map_err(bad)?;
        let drop: BTreeSet<String> = step.drop.iter().map(|name| name.to_lowercase()).collect();
        if let Some(stray) = step.drop.iter().find(|name| !there.iter().any(|(kind, n, _)| kind != "table" && n.eq_ignore_ascii_case(name))) {
            return Err(bad(format!("`drop` names {stray}, and {} has no such index or trigger", table.name)));
        }
        let said = |name: &str| drop.contains(&name.to_lowercase()) || authored.iter().any(|a| a.eq_ignore_ascii_case(name));
        for (kind, name, sql) in there.iter().filter(|(kind, name, _)| kind != "table" && !said(name)) {
            scratch.0.connection.execute_batch(sql).map_err(|error| {
                bad(format!("the {kind} {name} does not fit the new {}: {error}; write it anew in {}, or name it in `drop`", table.name, step.file))
            })?;
        }

        let name = authored[0].clone();
        let new = Facts::read(&scratch.0.connection, &name).map_err(sqlite(reading))?;
        let new_table = Table::read(&scratch.0.connection, &name)?.ok_or_else(|| bad(format!("there is no table {name}")))?;
        let autoincrement = scratch.has("sqlite_sequence").map_err(sqlite(reading))?;
        let texts = objects(&scratch.0.connection, &name).map_err(sqlite(reading))?;
        let triggers = texts.iter().filter(|(kind, _, _)| kind == "trigger").map(|(_, _, sql)| sql.clone()).collect();
        let made = scratch.renamed(&name, &side(number)).map_err(sqlite(reading))?;
        let before = Scratch::new()?;
        let of_old = there.iter().filter(|(kind, _, _)| kind != "trigger").try_for_each(|(_, _, sql)| before.0.connection.execute_batch(sql));
        of_old.map_err(|error| bad(format!("{} cannot be read without the application: {error}", table.name)))?;
        let put_aside = before.renamed(&table.name, &aside(number)).map_err(sqlite(reading))?;

        let source = Source { old: &old, step };
        let mut columns = source.columns(&new).map_err(bad)?;
        let image = source.image(&new, &table, &mut columns).map_err(bad)?;
        let turned: Vec<(String, String)> = image.iter().map(|(new, old)| (old.clone(), new.clone())).collect();
        let (new_rivals, _) = rivals(&new, &new_table, &turned);
        let (rivals, unwatchable) = rivals(&old, &table, &image);
        let plain: BTreeSet<String> = new.columns.iter().filter_map(|c| source.plain(&c.name)).map(|c| c.to_lowercase()).collect();
        let kept = |r: &&Reference| !(old.references.contains(r) && r.from.iter().all(|c| plain.contains(&c.to_lowercase())));
        Ok(Self {
            side: side(number),
            aside: aside(number),
            name,
            columns,
            image,
            made,
            triggers,
            put_aside,
            drop,
            autoincrement,
            rivals,
            new_rivals,
            unwatchable,
            new_references: new.references.iter().filter(kept).cloned().collect(),
            refers: !old.references.is_empty(),
            plain,
            table,
        })
    }

    /// The condition that a row of the side table, by that name in the query, is the image of the table's row.
    pub(super) fn is_image(&self, side: &str) -> String {
        let table = quote(&self.table.name);
        self.image.iter().map(|(new, old)| format!("{side}.{new} = {table}.{old}")).collect::<Vec<_>>().join(" AND ")
    }

    /// What plain SQLite is told to do the same, for clients of the seed form.
    pub fn statements(&self) -> Vec<String> {
        let aside = quote(&format!("new_{}", self.name));
        let list = |of: &dyn Fn(&(String, String)) -> &String| self.columns.iter().map(of).cloned().collect::<Vec<_>>().join(", ");
        let (columns, values) = (list(&|(column, _)| column), list(&|(_, value)| value));
        let table = quote(&self.table.name);
        let mut statements = vec![
            self.made[0].ours_sql.replacen(&quote(&self.side), &aside, 1),
            format!("INSERT INTO {aside} ({columns}) SELECT {values} FROM {table}"),
            "PRAGMA legacy_alter_table = ON".to_owned(),
            format!("DROP TABLE {table}"),
            format!("ALTER TABLE {aside} RENAME TO {}", quote(&self.name)),
            "PRAGMA legacy_alter_table = OFF".to_owned(),
        ];
        statements.extend(self.made[1..].iter().map(|text| text.sql.clone()));
        statements.extend(self.triggers.iter().cloned());
        statements
    }
}

/// Kind, name and text of a table and of what belongs to it, the table first. Ours are left out.
pub(super) fn objects(connection: &Connection, table: &str) -> rusqlite::Result<Vec<(String, String, String)>> {
    let mut statement = connection.prepare(
        "SELECT type, name, sql FROM main.sqlite_schema WHERE tbl_name = ?1 COLLATE NOCASE AND sql IS NOT NULL AND type <> 'view'
         ORDER BY type <> 'table', type, rowid",
    )?;
    let rows = statement.query_map([table], |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?, row.get(2)?)))?;
    rows.filter(|row| !matches!(row, Ok((kind, name, _)) if kind == "trigger" && is_ours(name))).collect()
}

/// A database in memory in which a table's texts are tried.
struct Scratch(Managed);

impl Scratch {
    fn new() -> Result<Self, ApplyError> {
        let connection = Connection::open_in_memory().map_err(sqlite("opening a database in memory"))?;
        Ok(Self(Managed::adopt(connection, Duration::ZERO, Halt::default())?))
    }

    /// Runs the author's text under the guard.
    fn write(&self, migration: &Migration, step: &Rebuild, place: &str) -> Result<(), ApplyError> {
        let text = migration.file(&step.file).expect("a verified migration has every file its steps name");
        let refuse = |_| Err("a rebuild is no script: it has CREATE statements only".to_owned());
        let on = self.0.guard.on(migration.manifest.timeout.get(), false);
        let file = format!("{}/{}", migration.name, step.file);
        script::run(&self.0.connection, &self.0.guard, &file, text, Reading::Run, refuse, |_| {})?;
        let touched = self.0.guard.touched();
        drop(on);
        // SQLite writes down what it makes.
        let rows = touched.written.iter().chain(&touched.removed).any(|table| !table.starts_with("sqlite_"));
        if !rows && !touched.altered {
            return Ok(());
        }
        Err(ApplyError::BadStep { place: place.to_owned(), why: format!("{} has more than CREATE statements", step.file) })
    }

    /// Names of what the author made, the table first; `Err` in words where that is not one table and what belongs to it.
    fn authored(&self, step: &Rebuild) -> rusqlite::Result<Result<Vec<String>, String>> {
        let mut statement = self.0.connection.prepare(
            "SELECT name, type = 'table' AND sql NOT LIKE 'create virtual%', tbl_name FROM main.sqlite_schema
             WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY type <> 'table', rowid",
        )?;
        let found: Vec<(String, bool, String)> =
            statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?.collect::<rusqlite::Result<_>>()?;
        let is_it = |table: &str| table.eq_ignore_ascii_case(&step.table);
        if found.first().is_none_or(|(name, table, _)| !*table || !is_it(name)) {
            return Ok(Err(format!("{} does not make the table {}", step.file, step.table)));
        }
        if let Some((name, _, _)) = found.iter().skip(1).find(|(_, table, of)| *table || !is_it(of)) {
            return Ok(Err(format!("{} makes {name}, which does not belong to {}", step.file, step.table)));
        }
        Ok(Ok(found.into_iter().map(|(name, _, _)| name).collect()))
    }

    fn has(&self, table: &str) -> rusqlite::Result<bool> {
        self.0.connection.query_row("SELECT count(*) > 0 FROM main.sqlite_schema WHERE name = ?1", [table], |row| row.get(0))
    }

    /// The texts of a table and its indexes under their names, and under ours. References to the table itself stay what
    /// they are: rows beside it refer to the rows that count.
    fn renamed(&self, table: &str, to: &str) -> rusqlite::Result<Vec<Text>> {
        let connection = &self.0.connection;
        let read = |table: &str| -> rusqlite::Result<Vec<_>> {
            Ok(objects(connection, table)?.into_iter().filter(|(kind, _, _)| kind != "trigger").collect())
        };
        let theirs = read(table)?;
        for (kind, name, _) in objects(connection, table)? {
            if kind == "trigger" {
                connection.execute_batch(&format!("DROP TRIGGER {}", quote(&name)))?;
            }
        }
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_LEGACY_ALTER_TABLE, true)?;
        connection.execute_batch(&format!("ALTER TABLE {} RENAME TO {}", quote(table), quote(to)))?;
        let ours = read(to)?;
        let pair = |((kind, name, sql), (_, _, ours_sql)): ((String, String, String), (String, String, String))| match kind.as_str() {
            "table" => Text { kind, name, sql, ours: to.to_owned(), ours_sql },
            _ => {
                let ours = format!("{to}_{name}");
                let ours_sql = with_name(&ours_sql, &ours);
                Text { kind, name, sql, ours, ours_sql }
            }
        };
        Ok(theirs.into_iter().zip(ours).map(pair).collect())
    }
}

/// The text of an index, as SQLite keeps it, with another name.
fn with_name(sql: &str, name: &str) -> String {
    let spans = spans(sql);
    let index = spans.iter().position(|(_, token)| token.is("index"));
    let bounds = index.and_then(|at| Some((spans.get(at + 1)?.0, spans.get(at + 2)?.0)));
    bounds.map_or_else(|| sql.to_owned(), |(from, to)| format!("{}{} {}", &sql[..from], quote(name), &sql[to..]))
}

/// Where the values of the new columns come from.
struct Source<'a> {
    old: &'a Facts,
    step: &'a Rebuild,
}

impl Source<'_> {
    fn said(&self, column: &str) -> Option<&String> {
        self.step.values.iter().find(|(name, _)| name.eq_ignore_ascii_case(column)).map(|(_, value)| value)
    }

    /// The old column that a new one is a copy of, under whatever name.
    fn copied(&self, column: &str) -> Option<&str> {
        let from = match self.said(column) {
            None => column.to_lowercase(),
            Some(value) => match tokens(value).as_slice() {
                [Token::Word(name) | Token::Quoted(name)] => name.clone(),
                _ => return None,
            },
        };
        self.old.column(&from).map(|column| column.name.as_str())
    }

    /// The old column of the same name, where the new one is its copy.
    fn plain(&self, column: &str) -> Option<&str> {
        self.copied(column).filter(|from| from.eq_ignore_ascii_case(column))
    }

    /// The columns that are written, with their values. The others get their default.
    fn columns(&self, new: &Facts) -> Result<Vec<(String, String)>, String> {
        for (name, value) in &self.step.values {
            check_fragment(value).map_err(|why| format!("`values`, {name}: {why}"))?;
            match new.column(name) {
                None => return Err(format!("`values` names {name}, which the new table does not have")),
                Some(column) if column.generated => return Err(format!("`values` names {name}, which the new table computes by itself")),
                Some(_) => {}
            }
        }
        let written = new.columns.iter().filter(|column| !column.generated);
        Ok(written
            .filter_map(|column| {
                let value = self.said(&column.name).map(|value| format!("({value}\n)")).or_else(|| self.copied(&column.name).map(quote));
                value.map(|value| (quote(&column.name), value))
            })
            .collect())
    }

    /// What ties a row to its image. A row id goes over as it is; otherwise a key that is in both tables does.
    fn image(&self, new: &Facts, table: &Table, columns: &mut Vec<(String, String)>) -> Result<Vec<(String, String)>, String> {
        if new.has_rowid && self.old.has_rowid {
            let row_id = table.key[0].clone();
            match &new.alias {
                None => {
                    if let Some(free) = ["_rowid_", "rowid", "oid"].into_iter().find(|name| new.column(name).is_none()) {
                        columns.push((free.to_owned(), row_id.clone()));
                        return Ok(vec![(free.to_owned(), row_id)]);
                    }
                }
                Some(alias) if self.said(alias).is_none() && self.old.column(alias).is_none() => {
                    columns.push((quote(alias), row_id.clone()));
                    return Ok(vec![(quote(alias), row_id)]);
                }
                Some(alias) if self.old.alias.as_deref().is_some_and(|old| self.copied(alias) == Some(old)) => {
                    return Ok(vec![(quote(alias), row_id)]);
                }
                Some(_) => {}
            }
        }
        let pairs = new.unique.iter().find_map(|unique| self.shared(new, unique));
        let pairs = pairs.ok_or_else(|| {
            format!(
                "no key of the new {0} is, column by column, a key of the old one: rows that change meanwhile could not be found again",
                table.name
            )
        })?;
        for (column, value) in columns.iter_mut() {
            // NULL would be given a number.
            if new.alias.as_ref().is_some_and(|alias| *column == quote(alias)) {
                *value = format!("ifnull({value}, 'no NULL is a key')");
            }
        }
        Ok(pairs)
    }

    /// The columns of a key of the new table, where they are a key of the old one and never NULL.
    fn shared(&self, new: &Facts, unique: &Unique) -> Option<Vec<(String, String)>> {
        let named = |unique: &Unique| -> Option<Vec<(String, String)>> {
            let whole = !unique.partial && !unique.columns.is_empty();
            whole.then(|| unique.columns.iter().map(|(name, collation)| Some((name.clone()?, collation.clone()))).collect()).flatten()
        };
        let mut pairs = Vec::new();
        let mut from = BTreeSet::new();
        for (column, collation) in named(unique)? {
            let old = self.copied(&column)?;
            let (a, b) = (new.column(&column)?, self.old.column(old)?);
            if a.generated || affinity(&a.kind) != affinity(&b.kind) {
                return None;
            }
            from.insert((old.to_lowercase(), collation.to_lowercase()));
            pairs.push((quote(&column), quote(old)));
        }
        let key_of = |columns: &[(String, String)]| -> BTreeSet<(String, String)> {
            columns.iter().map(|(name, collation)| (name.to_lowercase(), collation.to_lowercase())).collect()
        };
        let old = self.old.unique.iter().filter_map(named).find(|columns| key_of(columns) == from)?;
        let is_primary = |facts: &Facts, columns: &[(String, String)]| {
            columns.len() == facts.primary.len() && columns.iter().all(|(name, _)| facts.primary.iter().any(|p| p.eq_ignore_ascii_case(name)))
        };
        let never_null = |facts: &Facts, columns: &[(String, String)]| (!facts.has_rowid || facts.alias.is_some()) && is_primary(facts, columns);
        (never_null(new, &named(unique)?) || never_null(self.old, &old)).then_some(pairs)
    }
}

/// The rows that a REPLACE can delete besides the one it names: no trigger fires for them unless the application asked for
/// recursive ones (<https://sqlite.org/lang_conflict.html>). As conditions on the table, with `NEW`; and why some cannot
/// be told.
fn rivals(old: &Facts, table: &Table, image: &[(String, String)]) -> (Vec<String>, Option<String>) {
    let (mut conditions, mut unwatchable) = (Vec::new(), None);
    let of_image = |columns: &[Option<String>]| {
        columns.len() == image.len() && columns.iter().flatten().all(|c| image.iter().any(|(_, old)| old.eq_ignore_ascii_case(&quote(c))))
    };
    let is_row_id = image.len() == 1 && image[0].1 == table.key[0];
    if old.has_rowid && !is_row_id && old.alias.is_none() {
        conditions.push(format!("{0} = NEW.{0}", table.key[0]));
    }
    for unique in &old.unique {
        let names: Vec<Option<String>> = unique.columns.iter().map(|(name, _)| name.clone()).collect();
        let alias_is_image = is_row_id && names.len() == 1 && names[0].is_some() && names[0] == old.alias;
        if !unique.partial && (of_image(&names) || alias_is_image) {
            continue;
        }
        let mut terms = Vec::new();
        for (name, collation) in &unique.columns {
            match name {
                Some(name) => terms.push(format!("{0} COLLATE {1} = NEW.{0}", quote(name), quote(collation))),
                None => unwatchable = unwatchable.or_else(|| unique.sql.clone()),
            }
        }
        if let Some(condition) = unique.sql.as_deref().filter(|_| unique.partial).and_then(condition_of) {
            terms.push(format!("({condition})"));
        }
        conditions.push(terms.join(" AND "));
    }
    (conditions, unwatchable)
}

/// The condition of a partial index.
fn condition_of(sql: &str) -> Option<&str> {
    let mut depth = 0usize;
    spans(sql).into_iter().find_map(|(at, token)| {
        match token {
            Token::Mark('(') => depth += 1,
            Token::Mark(')') => depth = depth.saturating_sub(1),
            _ => {}
        }
        (depth == 0 && token.is("where")).then(|| &sql[at + "where".len()..])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_gets_another_name_and_stays_the_same() {
        let check = |sql: &str, expected: &str| assert_eq!(with_name(sql, "n"), expected);
        check("CREATE INDEX a ON t(x)", "CREATE INDEX \"n\" ON t(x)");
        check("CREATE UNIQUE INDEX \"index on\"ON t(x) WHERE index_a", "CREATE UNIQUE INDEX \"n\" ON t(x) WHERE index_a");
    }

    #[test]
    fn the_condition_of_a_partial_index_is_what_follows_its_columns() {
        assert_eq!(condition_of("CREATE INDEX a ON t(x) WHERE (y IS NULL)").map(str::trim), Some("(y IS NULL)"));
        assert_eq!(condition_of("CREATE INDEX \"where\" ON t(\"where\", (1))"), None);
    }
}
