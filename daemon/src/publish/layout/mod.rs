//! Reads a migrations directory as it lies there, ours or another tool's, into a chain in order. Pure: a listing in, a
//! chain out.

mod detect;
mod directories;
mod drizzle;
mod error;
mod left_out;
mod numbered;
mod prefix;
mod prisma;
mod sections;
mod seed;
#[cfg(test)]
mod tests;
mod versioned;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use whimbrel_shared::{
    ids::MigrationName,
    manifest::{LegacyAlterTable, Manifest},
    migration::{FORMAT, MAX_CHAIN, Migration},
    sql::{Token, tokens},
};

pub use self::error::LayoutError;
pub(crate) use self::wanted::legacy_alter_table;
use super::listing::Listing;

/// How a tool lays out its migrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Layout {
    /// Ours: `0001_name/up.sql`, with `down.sql`, `verify.sql` and `migration.toml`.
    Whimbrel,
    /// `1_name.up.sql` and `1_name.down.sql`.
    GolangMigrate,
    /// `1_name.sql`, or the form of golang-migrate. Wrangler's D1 and many hand-written runners use it too.
    Sqlx,
    /// `stamp_name/up.sql` and `down.sql`. The directories of rusqlite_migration (`01-name/up.sql`) read alike.
    Diesel,
    /// `V1__name.sql`. Flyway's undo files (`U1__name.sql`) are read as downs.
    Refinery,
    /// `1_name.sql` with `-- +goose Up` and `-- +goose Down`.
    Goose,
    /// `1_name.sql` with `-- +migrate Up` and `-- +migrate Down` (rubenv/sql-migrate).
    SqlMigrate,
    /// `stamp_name.sql` with `-- migrate:up` and `-- migrate:down`.
    Dbmate,
    /// `stamp_name/migration.sql` beside `migration_lock.toml`.
    Prisma,
    /// `0000_tag.sql` in the order of `meta/_journal.json`, or `stamp_name/migration.sql` beside `snapshot.json`.
    Drizzle,
    /// JSON of the seed systems: `{timestamp, migrationName, upQueries, downQueries}`, one or a list.
    SeedJson,
}

impl Layout {
    /// Every layout.
    pub const ALL: [Self; 11] = [
        Self::Whimbrel,
        Self::GolangMigrate,
        Self::Sqlx,
        Self::Diesel,
        Self::Refinery,
        Self::Goose,
        Self::SqlMigrate,
        Self::Dbmate,
        Self::Prisma,
        Self::Drizzle,
        Self::SeedJson,
    ];

    /// Its name, as `--layout` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Whimbrel => "whimbrel",
            Self::GolangMigrate => "golang-migrate",
            Self::Sqlx => "sqlx",
            Self::Diesel => "diesel",
            Self::Refinery => "refinery",
            Self::Goose => "goose",
            Self::SqlMigrate => "sql-migrate",
            Self::Dbmate => "dbmate",
            Self::Prisma => "prisma",
            Self::Drizzle => "drizzle",
            Self::SeedJson => "seed-json",
        }
    }

    fn drafts(self, listing: &Listing, notes: &mut Vec<String>) -> Result<Vec<Draft>, LayoutError> {
        match self {
            Self::Whimbrel => directories::ours(listing),
            Self::Diesel => directories::diesel(listing, notes),
            Self::GolangMigrate | Self::Sqlx => numbered::read(listing, notes),
            Self::Refinery => versioned::read(listing),
            Self::Goose => sections::read(listing, sections::Marks::Goose, notes),
            Self::SqlMigrate => sections::read(listing, sections::Marks::SqlMigrate, notes),
            Self::Dbmate => sections::read(listing, sections::Marks::Dbmate, notes),
            Self::Prisma => prisma::read(listing),
            Self::Drizzle => drizzle::read(listing, notes),
            Self::SeedJson => seed::read(listing),
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no layout.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no layout: there are {all}", all = all_names())]
pub struct UnknownLayout(String);

impl FromStr for Layout {
    type Err = UnknownLayout;
    fn from_str(text: &str) -> Result<Self, UnknownLayout> {
        Self::ALL.into_iter().find(|layout| layout.name() == text).ok_or_else(|| UnknownLayout(text.chars().take(40).collect()))
    }
}

fn all_names() -> String {
    Layout::ALL.map(Layout::name).join(", ")
}

/// Where a text of a migration stands in the directory, so that a finding points at the author's own line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Path in the directory.
    pub path: String,
    /// Line of that file, from 1, on which the text begins.
    pub first_line: u32,
}

/// A migration as it was authored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authored {
    /// What will be signed.
    pub migration: Migration,
    /// Milliseconds since 1970 that its name or its file carries.
    pub timestamp_ms: Option<i64>,
    /// Where each of its files comes from.
    pub origins: BTreeMap<String, Origin>,
    /// Files that lie in its own directory and are in no step.
    pub unused: Vec<String>,
}

impl Authored {
    /// Where `line` (from 1) of its file `file` stands in the directory.
    pub fn place(&self, file: &str, line: u32) -> (String, u32) {
        match self.origins.get(file) {
            Some(origin) => (origin.path.clone(), origin.first_line.saturating_add(line).saturating_sub(1)),
            None => (format!("{}/{file}", self.migration.name), line),
        }
    }
}

/// A directory, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// As which layout.
    pub layout: Layout,
    /// In chain order.
    pub migrations: Vec<Authored>,
    /// What a person should know: files that were passed over, numbers that are missing.
    pub notes: Vec<String>,
}

/// Reads `listing` as `forced`, or as the one layout it shows. Fails with every layout seen when there are several.
pub fn read(listing: &Listing, forced: Option<Layout>) -> Result<Chain, LayoutError> {
    let layout = match forced {
        Some(layout) => layout,
        None => {
            detect::no_code(listing)?;
            detect::layout(listing)?
        }
    };
    let mut notes = Vec::new();
    let mut drafts = layout.drafts(listing, &mut notes)?;
    if drafts.is_empty() {
        return Err(detect::nothing(listing, forced));
    }
    if drafts.len() > MAX_CHAIN {
        return Err(LayoutError::TooMany { found: drafts.len() });
    }
    if layout != Layout::Whimbrel {
        notes.extend(left_out::leave_out(&mut drafts));
    }
    drafts.sort_by(|a, b| a.order.cmp(&b.order));
    for pair in drafts.windows(2) {
        if let [a, b] = pair
            && a.order == b.order
        {
            return Err(LayoutError::Duplicate { number: a.order.to_string(), first: a.path(), second: b.path() });
        }
    }
    notes.extend(gaps(&drafts));
    let empty = drafts.iter().filter(|d| d.empty_down.is_some()).count();
    if empty > 0 {
        notes.push(format!("{empty} of {} ways down say nothing: those migrations cannot be reverted", drafts.len()));
    }
    notes.extend(passed_over(listing, &drafts));
    let migrations = drafts.into_iter().map(|draft| draft.finish(layout)).collect::<Result<Vec<_>, _>>()?;
    let mut names: BTreeMap<&MigrationName, &Authored> = BTreeMap::new();
    for authored in &migrations {
        if let Some(other) = names.insert(&authored.migration.name, authored) {
            return Err(LayoutError::Duplicate {
                number: format!("name {}", authored.migration.name),
                first: other.place("up.sql", 1).0,
                second: authored.place("up.sql", 1).0,
            });
        }
    }
    let aside = migrations.iter().filter(|m| m.migration.manifest.legacy_alter_table == LegacyAlterTable::Down).count();
    if aside > 0 {
        notes.push(format!(
            "{aside} of {} ways down rename a table before they make it again: they run with legacy_alter_table on, so that references to it stay",
            migrations.len()
        ));
    }
    Ok(Chain { layout, migrations, notes })
}

/// Where a migration stands among the others: numbers compared as numbers, then text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Order(Vec<u128>, String);

impl Order {
    fn number(number: u128) -> Self {
        Self(vec![number], String::new())
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<_> = self.0.iter().map(u128::to_string).collect();
        write!(f, "number {}{}", numbers.join("."), self.1)
    }
}

/// A text and where it begins.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Text {
    origin: Origin,
    sql: String,
}

impl Text {
    fn whole(path: &str, sql: &str) -> Self {
        Self { origin: Origin { path: path.to_owned(), first_line: 1 }, sql: sql.to_owned() }
    }

    /// Whether it has a statement, and not only comments and semicolons.
    fn says_something(&self) -> bool {
        says_something(&self.sql)
    }
}

fn says_something(sql: &str) -> bool {
    tokens(sql).iter().any(|t| *t != Token::Mark(';'))
}

/// A migration as a layout's reader found it.
#[derive(Clone, Debug)]
struct Draft {
    name: String,
    order: Order,
    timestamp_ms: Option<i64>,
    /// Files by their name in the migration.
    files: BTreeMap<String, Text>,
    /// What `migration.toml` says, where there is one.
    manifest: Option<Manifest>,
    unused: Vec<String>,
    /// A file or list for the way down in which nothing is said.
    empty_down: Option<String>,
}

impl Draft {
    fn new(name: &str, order: Order, up: Text) -> Self {
        Self {
            name: name.to_owned(),
            order,
            timestamp_ms: prefix::timestamp_ms(name),
            files: BTreeMap::from([("up.sql".to_owned(), up)]),
            manifest: None,
            unused: Vec::new(),
            empty_down: None,
        }
    }

    /// Adds the down, unless it says nothing: templates leave an empty one, and that takes nothing back.
    fn with_down(mut self, down: Option<Text>) -> Self {
        match down {
            Some(down) if down.says_something() => {
                self.files.insert("down.sql".to_owned(), down);
            }
            Some(empty) => self.empty_down = Some(empty.origin.path),
            None => {}
        }
        self
    }

    /// The file by which to name it in an error.
    fn path(&self) -> String {
        self.files.get("up.sql").or_else(|| self.files.values().next()).map_or_else(|| self.name.clone(), |text| text.origin.path.clone())
    }

    fn finish(self, layout: Layout) -> Result<Authored, LayoutError> {
        let path = self.path();
        let name: MigrationName = self.name.parse().map_err(|source| LayoutError::BadName { path: path.clone(), source })?;
        let mut origins = BTreeMap::new();
        let mut files = BTreeMap::new();
        for (file, text) in self.files {
            origins.insert(file.clone(), text.origin);
            files.insert(file, text.sql);
        }
        let manifest = self.manifest.unwrap_or_else(|| wanted::wanted(&files));
        let migration =
            Migration { format: FORMAT.to_owned(), name, manifest, down: files.contains_key("down.sql").then(|| "down.sql".to_owned()), files };
        // The one check of what a migration must be, its size included: what goes out must be readable there.
        Migration::from_bytes(&migration.to_bytes()).map_err(|source| LayoutError::Migration { path, layout, source })?;
        Ok(Authored { migration, timestamp_ms: self.timestamp_ms, origins, unused: self.unused })
    }
}

/// A hole in small numbers may be a file that was forgotten; time stamps have nothing but holes.
fn gaps(drafts: &[Draft]) -> Vec<String> {
    const LARGEST_COUNTED: u128 = 99_999;
    let numbers: Vec<u128> = drafts
        .iter()
        .filter_map(|draft| match draft.order.0.as_slice() {
            [number] if draft.order.1.is_empty() => Some(*number),
            _ => None,
        })
        .collect();
    if numbers.len() != drafts.len() || numbers.last().is_none_or(|n| *n > LARGEST_COUNTED) {
        return Vec::new();
    }
    let missing: Vec<u128> = numbers.windows(2).flat_map(|pair| pair[0] + 1..pair[1]).collect();
    match missing.as_slice() {
        [] => Vec::new(),
        many => vec![format!("the numbers have gaps, which is allowed: there is no {}", few(many.iter().map(u128::to_string)))],
    }
}

fn passed_over(listing: &Listing, drafts: &[Draft]) -> Option<String> {
    let used: BTreeSet<&str> = drafts
        .iter()
        .flat_map(|d| d.files.values())
        // A list in one JSON file gives several: what stands after `#` is the place in it.
        .map(|text| text.origin.path.as_str())
        .chain(drafts.iter().filter_map(|d| d.empty_down.as_deref()))
        .filter_map(|path| path.split('#').next())
        .collect();
    let manifests = |path: &str| {
        path.ends_with("/migration.toml")
            || path.ends_with("/metadata.toml")
            || path == "migration_lock.toml"
            || path.starts_with("meta/")
            || path.ends_with("/snapshot.json")
    };
    let mut rest = listing.paths().filter(|path| !used.contains(path) && !manifests(path)).peekable();
    rest.peek()?;
    Some(format!("passed over, as no migration: {}", few(rest.map(str::to_owned))))
}

/// The first few of many, and how many more there are.
fn few(items: impl Iterator<Item = String>) -> String {
    const SHOWN: usize = 6;
    let items: Vec<String> = items.collect();
    let shown = items[..items.len().min(SHOWN)].join(", ");
    match items.len().saturating_sub(SHOWN) {
        0 => shown,
        more => format!("{shown} and {more} more"),
    }
}
