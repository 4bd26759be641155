//! What the tracker of another tool says of a file's past. Pure.

use std::fmt;

/// A tool that keeps, in the database itself, what it has applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tool {
    /// sqlx, also as tauri-plugin-sql.
    Sqlx,
    /// refinery.
    Refinery,
    /// diesel.
    Diesel,
    /// golang-migrate.
    GolangMigrate,
    /// goose.
    Goose,
    /// rubenv/sql-migrate.
    SqlMigrate,
    /// dbmate.
    Dbmate,
    /// Rails' Active Record.
    Rails,
    /// Flyway.
    Flyway,
    /// Liquibase.
    Liquibase,
    /// Alembic.
    Alembic,
    /// Django.
    Django,
    /// Prisma.
    Prisma,
    /// TypeORM.
    TypeOrm,
    /// knex.
    Knex,
    /// drizzle.
    Drizzle,
    /// Kysely.
    Kysely,
    /// Entity Framework Core.
    EfCore,
    /// Atlas.
    Atlas,
    /// yoyo.
    Yoyo,
    /// GRDB.
    Grdb,
    /// Android's Room.
    Room,
    /// The tables of the seed systems: `client_migration`, `client_migration_status`, `migration_changes`.
    Seed,
    /// `PRAGMA user_version` alone: rusqlite_migration, sqflite, and applications by hand.
    UserVersion,
}

impl Tool {
    /// As its users write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sqlx => "sqlx",
            Self::Refinery => "refinery",
            Self::Diesel => "diesel",
            Self::GolangMigrate => "golang-migrate",
            Self::Goose => "goose",
            Self::SqlMigrate => "sql-migrate",
            Self::Dbmate => "dbmate",
            Self::Rails => "Rails",
            Self::Flyway => "Flyway",
            Self::Liquibase => "Liquibase",
            Self::Alembic => "Alembic",
            Self::Django => "Django",
            Self::Prisma => "Prisma",
            Self::TypeOrm => "TypeORM",
            Self::Knex => "knex",
            Self::Drizzle => "drizzle",
            Self::Kysely => "Kysely",
            Self::EfCore => "EF Core",
            Self::Atlas => "Atlas",
            Self::Yoyo => "yoyo",
            Self::Grdb => "GRDB",
            Self::Room => "Room",
            Self::Seed => "the seed's tables",
            Self::UserVersion => "user_version",
        }
    }
}

impl fmt::Display for Tool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One tracker, read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Past {
    /// Whose it is.
    pub tool: Tool,
    /// Where it was read: a table's name, or `PRAGMA user_version`.
    pub table: String,
    /// What is in place, oldest first.
    pub applied: Vec<Applied>,
    /// Why it cannot be believed as it is.
    pub trouble: Option<Trouble>,
    /// What a person should know.
    pub notes: Vec<String>,
}

impl Past {
    /// A tracker in which nothing stands yet.
    pub fn new(tool: Tool, table: &str) -> Self {
        Self { tool, table: table.to_owned(), applied: Vec::new(), trouble: None, notes: Vec::new() }
    }
}

/// One entry of a tracker that is in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// As the tool shows it.
    pub id: String,
    /// What it may be called in our chain, the surest first.
    pub keys: Vec<Key>,
    /// The part of the past it belongs to, where a tool keeps several side by side (Django's apps).
    pub group: Option<String>,
    /// Whether it speaks for itself or for all before it too.
    pub reach: Reach,
}

impl Applied {
    /// An entry that speaks for itself.
    pub fn one(id: impl Into<String>, keys: Vec<Key>) -> Self {
        Self { id: id.into(), keys, group: None, reach: Reach::Itself }
    }

    /// An entry that speaks for all before it too.
    pub fn up_to(id: impl Into<String>, keys: Vec<Key>) -> Self {
        Self { id: id.into(), keys, group: None, reach: Reach::AllBefore }
    }
}

/// How far an entry speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// For itself.
    Itself,
    /// For itself and everything before it in the chain.
    AllBefore,
}

/// How an entry is found in the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// By its name: the whole of it, or what follows its number.
    Name(String),
    /// By one word of its name, such as a revision id.
    Word(String),
    /// By the number or stamp at the front of its name (or at its end, as TypeORM writes it); `1.2` is two numbers.
    Numbers(Vec<u128>),
    /// By its place in the chain, from 1.
    Place(u32),
}

impl Key {
    /// The number that a text of digits is; its name where it is none.
    pub fn of_version(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Name(text.to_owned()), |number| Self::Numbers(vec![number]))
    }
}

/// Why a tracker cannot be believed as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Which kind.
    pub kind: TroubleKind,
    /// What was found.
    pub what: String,
    /// What to do, with the tool's own command where it has one.
    pub remedy: String,
}

/// Which kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// A migration was left half done. The schema tells what is there.
    Dirty,
    /// The tool holds its lock: it may be at work this moment.
    Locked,
}

impl Trouble {
    /// A migration was left half done.
    pub fn dirty(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Dirty, what: what.into(), remedy: remedy.into() }
    }

    /// The tool holds its lock.
    pub fn locked(what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: TroubleKind::Locked, what: what.into(), remedy: remedy.into() }
    }
}
