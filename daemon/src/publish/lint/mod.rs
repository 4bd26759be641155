//! What a reviewer would say about a chain before it goes to devices that nobody can reach: named rules, each with its
//! place and its remedy. Pure, but for the one question that only SQLite answers (see [`Asked`]).
//!
//! The numbers up to WB016 are those of the reference; the rest are our own.

mod after;
mod ask;
mod columns;
mod list;
pub(in crate::publish) mod rows;
mod rules;
mod steps;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt};

use serde::Serialize;
use whimbrel_shared::{ids::MigrationName, manifest::Step};

pub use self::{
    after::{Facts, after, down, half_way, made_up},
    ask::Ask,
    columns::{problem, remark},
    list::{Listed, list},
};
use super::{
    layout::{Authored, Chain, Layout},
    scan::{self, Deed, Statement},
};

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// Worth reading; publishing goes on.
    Warning,
    /// Publishing is refused.
    Error,
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

/// A rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(into = "&'static str")]
pub enum Rule {
    /// A table goes with its rows.
    DropTable,
    /// A column goes with its values.
    DropColumn,
    /// A table or column that a running app uses changes its name.
    Rename,
    /// An added column that SQLite accepts on an empty table only.
    NeedsEmptyTable,
    /// A unique index over rows that are there already.
    UniqueOverRows,
    /// A rebuild that renames the old table first.
    RenameFirst,
    /// A pragma that has no effect here, or that no migration may use.
    Pragma,
    /// A table is dropped while cascades act.
    DropUnderCascades,
    /// Every row of a table is rewritten.
    UpdateAll,
    /// A rebuild lost an index or a trigger.
    LostObject,
    /// Transaction control that cannot be granted.
    Transaction,
    /// A trigger that inserts without naming columns.
    PositionalInsert,
    /// A default in double quotes.
    QuotedDefault,
    /// Every row of a table is deleted.
    DeleteAll,
    /// A statement that reaches beyond the file, or rewrites it whole.
    WholeFile,
    /// A name that belongs to whimbrel.
    Reserved,
    /// The way down does not lead back.
    Down,
    /// A file that no step runs.
    UnusedFile,
    /// A backfill whose result depends on more than its own row.
    Backfill,
    /// Rows of a synced table are changed past the journal.
    SyncedRows,
    /// A foreign key to a table that is not there.
    DanglingKey,
    /// Automatically assigned keys exchanged both ways.
    SyncKeys,
    /// A migration in which nothing is said.
    Nothing,
    /// An online migration that cannot be taken back from half-way.
    HalfWay,
    /// A view or trigger that does not compile any more.
    Broken,
    /// More is written than the disk has room for.
    DiskRoom,
    /// A column's type changes under its values.
    TypeChange,
    /// A row step of a table that is not there.
    RowTarget,
    /// A row step whose keys make no sense together.
    RowStep,
    /// A shipped file that cannot be read.
    ShippedFile,
    /// A load whose key does not identify a row.
    LoadKey,
    /// A table is emptied before a load.
    ClearExisting,
    /// A synced table's rows are changed in one transaction.
    SyncedInOne,
    /// A `continues_after` that is no place to go on from.
    Continues,
    /// A backfill that fails on a made-up row.
    MadeUpRow,
    /// A `[[carry]]` that does not fit, or is needed.
    Carry,
    /// A `[sync.TABLE]` that cannot be.
    SyncTable,
    /// A backfill gives a column another id.
    Renewed,
    /// Something is computed that is not the row's own.
    OwnRow,
    /// Rows of older versions cannot be brought over.
    NoWayUp,
    /// A unique index that only the device can see to.
    NotAtServer,
    /// A key column that may be NULL.
    NullableKey,
}

impl Rule {
    /// Its stable name.
    pub fn code(self) -> &'static str {
        match self {
            Self::DropTable => "WB001",
            Self::DropColumn => "WB002",
            Self::Rename => "WB003",
            Self::NeedsEmptyTable => "WB004",
            Self::UniqueOverRows => "WB005",
            Self::RenameFirst => "WB006",
            Self::Pragma => "WB007",
            Self::DropUnderCascades => "WB008",
            Self::UpdateAll => "WB009",
            Self::LostObject => "WB010",
            Self::Transaction => "WB012",
            Self::PositionalInsert => "WB013",
            Self::QuotedDefault => "WB014",
            Self::DeleteAll => "WB017",
            Self::WholeFile => "WB018",
            Self::Reserved => "WB019",
            Self::Down => "WB020",
            Self::UnusedFile => "WB021",
            Self::Backfill => "WB022",
            Self::SyncedRows => "WB023",
            Self::DanglingKey => "WB024",
            Self::SyncKeys => "WB025",
            Self::Nothing => "WB026",
            Self::HalfWay => "WB027",
            Self::Broken => "WB011",
            Self::DiskRoom => "WB015",
            Self::TypeChange => "WB016",
            Self::RowTarget => "WB028",
            Self::RowStep => "WB029",
            Self::ShippedFile => "WB030",
            Self::LoadKey => "WB031",
            Self::ClearExisting => "WB032",
            Self::SyncedInOne => "WB033",
            Self::Continues => "WB034",
            Self::MadeUpRow => "WB035",
            Self::Carry => "WB036",
            Self::SyncTable => "WB037",
            Self::Renewed => "WB038",
            Self::OwnRow => "WB039",
            Self::NoWayUp => "WB040",
            Self::NotAtServer => "WB041",
            Self::NullableKey => "WB042",
        }
    }
}

impl From<Rule> for &'static str {
    fn from(rule: Rule) -> Self {
        rule.code()
    }
}

/// What one rule says about one place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The rule.
    pub code: Rule,
    /// How much it weighs here.
    pub level: Level,
    /// The migration.
    pub migration: MigrationName,
    /// Path in the directory.
    pub file: String,
    /// From 1.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// What is the matter.
    pub what: String,
    /// What can be done.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { code, level, file, line, column, what, remedy, .. } = self;
        write!(f, "{level}[{}] {file}:{line}:{column}: {what}\n    remedy: {remedy}", code.code())
    }
}

/// How strictly to judge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strictness {
    /// Whose layout it is: an existing project's migrations publish without an edit, so what destroys data there has
    /// been accepted by its authors long ago, and is only said.
    pub layout: Layout,
    /// Judge another tool's layout like ours.
    pub strict: bool,
}

/// How a rule's finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Weight {
    /// The engine will refuse it, whoever wrote it.
    Always,
    /// Data goes: an error in our layout, unless the manifest says that it is meant.
    Destructive,
    /// An error in our layout.
    OursOnly,
    /// Good to know.
    Advice,
}

impl Strictness {
    fn level(self, weight: Weight) -> Level {
        match weight {
            Weight::Always => Level::Error,
            Weight::Destructive | Weight::OursOnly if self.strict || self.layout == Layout::Whimbrel => Level::Error,
            Weight::Destructive | Weight::OursOnly | Weight::Advice => Level::Warning,
        }
    }
}

/// What SQLite's authorizer, with the engine's guard behind it, says about one statement by itself: why it is refused,
/// if it is. Asked rather than known here, so that lint and engine cannot disagree.
pub type Asked<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Judges a whole chain: later migrations are read with the tables that earlier ones leave.
pub fn lint(chain: &Chain, strict: bool, asked: Asked<'_>) -> Vec<Finding> {
    let strictness = Strictness { layout: chain.layout, strict };
    let mut findings = Vec::new();
    let mut so_far = rows::SoFar::default();
    for authored in &chain.migrations {
        let mut desk = Desk { authored, strictness, findings: &mut findings };
        rules::judge(&mut desk, &mut so_far, asked);
    }
    findings
}

/// Where one migration's findings are written down.
struct Desk<'a> {
    authored: &'a Authored,
    strictness: Strictness,
    findings: &'a mut Vec<Finding>,
}

impl Desk<'_> {
    /// Writes one down, at byte `at` of `file`. What an author declared as meant is not said again.
    fn note(&mut self, rule: Rule, weight: Weight, file: &str, at: usize, what: impl Into<String>, remedy: impl Into<String>) {
        let migration = &self.authored.migration;
        if weight == Weight::Destructive && migration.manifest.destructive {
            return;
        }
        let (line, column) = scan::line_column(migration.file(file).unwrap_or_default(), at);
        let (file, line) = self.authored.place(file, line);
        self.findings.push(Finding {
            code: rule,
            level: self.strictness.level(weight),
            migration: migration.name.clone(),
            file,
            line,
            column,
            what: what.into(),
            remedy: remedy.into(),
        });
    }
}

/// A file of SQL, read.
struct Script<'a> {
    file: &'a str,
    text: &'a str,
    done: Vec<(Statement, Deed)>,
}

impl<'a> Script<'a> {
    fn read(files: &'a BTreeMap<String, String>, file: &'a str) -> Self {
        let text = files.get(file).map_or("", String::as_str);
        let done = scan::statements(text)
            .into_iter()
            .map(|statement| {
                let deed = scan::deed(&statement);
                (statement, deed)
            })
            .collect();
        Self { file, text, done }
    }
}

/// Files of the `sql` steps, in order. A file may run twice.
fn sql_files(steps: &[Step]) -> Vec<&str> {
    steps
        .iter()
        .filter_map(|step| match step {
            Step::Sql { file } => Some(file.as_str()),
            Step::Verify { .. } | Step::Backfill(_) | Step::Load(_) | Step::Rebuild(_) => None,
        })
        .collect()
}
