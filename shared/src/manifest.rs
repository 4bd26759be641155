//! `migration.toml`: everything about a migration but its SQL. Pure. It parses whole from day one and is part of the
//! migration's digest; a step that a binary cannot run is refused by name there, never skipped.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::duration::Span;

/// A parsed `migration.toml`. Every key has the default that an absent file means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Manifest {
    /// One line for people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// One transaction, or short resumable ones.
    pub mode: Mode,
    /// App builds older than this cannot live with the new schema.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_app: Option<String>,
    /// Longest write lock an atomic migration may be estimated to hold.
    pub max_lock: Span,
    /// Longest time its statements may run.
    pub timeout: Span,
    /// Whether foreign keys act while it runs.
    pub foreign_keys: ForeignKeys,
    /// Whether a table that is renamed leaves the references of others where they are.
    #[serde(skip_serializing_if = "LegacyAlterTable::is_off")]
    pub legacy_alter_table: LegacyAlterTable,
    /// When a copy of the file is made first.
    pub backup: Backup,
    /// The author's word that data is meant to go.
    #[serde(skip_serializing_if = "is_false")]
    pub destructive: bool,
    /// A revision that goes on where an earlier revision of an online migration stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub continues_after: Option<u32>,
    /// The parts, in order. None written means: `up.sql`, then `verify.sql` where there is one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub step: Vec<Step>,
    /// What becomes of unsent local edits.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub carry: Vec<Carry>,
    /// Which tables exchange rows from this version on.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sync: BTreeMap<String, SyncTable>,
}

impl Default for Manifest {
    fn default() -> Self {
        Self {
            description: String::new(),
            mode: Mode::Atomic,
            min_app: None,
            max_lock: Span::from_millis(2_000),
            timeout: Span::from_millis(600_000),
            foreign_keys: ForeignKeys::Off,
            legacy_alter_table: LegacyAlterTable::Off,
            backup: Backup::Auto,
            destructive: false,
            continues_after: None,
            step: Vec::new(),
            carry: Vec::new(),
            sync: BTreeMap::new(),
        }
    }
}

fn is_false(value: &bool) -> bool {
    !*value
}

/// How the steps are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// All or none, in one transaction.
    Atomic,
    /// Schema steps in such transactions; backfill and load in short resumable ones.
    Online,
}

/// Foreign keys while a migration runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ForeignKeys {
    /// They do not act (a rebuilt parent keeps its children); the result is checked before COMMIT.
    Off,
    /// Cascades are wanted; dropping a referenced table is refused.
    On,
}

/// What renaming a table does to other tables' references, views and triggers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LegacyAlterTable {
    /// They follow it, as SQLite does of itself.
    Off,
    /// On the way down they keep the old name: the script puts a table aside and makes one of that name again.
    Down,
}

impl LegacyAlterTable {
    fn is_off(&self) -> bool {
        *self == Self::Off
    }
}

/// When a backup is made before the migration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Backup {
    /// When a step is destructive.
    Auto,
    /// Each time.
    Always,
    /// Not at all.
    Never,
}

/// One part of a migration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawStep", into = "RawStep")]
pub enum Step {
    /// Run a file's statements.
    Sql {
        /// Name of the file beside the manifest.
        file: String,
    },
    /// Every statement of a file must return no row, or one row whose only column is true.
    Verify {
        /// Name of the file beside the manifest.
        file: String,
    },
    /// Change rows range by range.
    Backfill(Backfill),
    /// Insert rows that were shipped with the migration.
    Load(Load),
    /// Give a table another shape, its rows copied range by range.
    Rebuild(Rebuild),
}

impl Step {
    /// What kind of step it is, in the manifest's word.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Sql { .. } => "sql",
            Self::Verify { .. } => "verify",
            Self::Backfill(_) => "backfill",
            Self::Load(_) => "load",
            Self::Rebuild(_) => "rebuild",
        }
    }

    /// The file it reads, where it reads one.
    pub fn file(&self) -> Option<&str> {
        match self {
            Self::Sql { file } | Self::Verify { file } => Some(file),
            Self::Load(load) => Some(&load.file),
            Self::Rebuild(rebuild) => Some(&rebuild.file),
            Self::Backfill(_) => None,
        }
    }
}

/// A row-by-row change that can be restarted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backfill {
    /// The table.
    pub table: String,
    /// The assignments of its UPDATE.
    pub set: String,
    /// Which rows still need it: also the test that a second run does nothing.
    pub filter: String,
    /// What a row that fails does to the rest.
    pub on_error: OnError,
    /// Cap on the rows of one chunk.
    pub batch: Option<u32>,
}

/// Rows shipped with a migration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Load {
    /// NDJSON or CSV file beside the manifest.
    pub file: String,
    /// The table.
    pub into: String,
    /// Columns that identify a row.
    pub key: Vec<String>,
    /// What happens to a row that is there already.
    pub conflict: LoadConflict,
    /// Column that tells the newer of two rows, for `keep-newest` and `keep-oldest`.
    pub newest: Option<String>,
    /// Whether the table is emptied first.
    pub clear_existing: bool,
    /// Load only rows whose `newest` column is above the largest one present.
    pub since: bool,
    /// What a row that fails does to the rest.
    pub on_error: OnError,
    /// Cap on the rows of one chunk.
    pub batch: Option<u32>,
}

/// A table that gets another shape, and keeps its rows, indexes and triggers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The table.
    pub table: String,
    /// File beside the manifest: CREATE TABLE as it is to be, then the indexes and triggers that are new or different.
    pub file: String,
    /// Values of columns that are not copied as they are: new column to an expression over the old row.
    pub values: BTreeMap<String, String>,
    /// Indexes and triggers of the table that go.
    pub drop: Vec<String>,
    /// Cap on the rows of one chunk.
    pub batch: Option<u32>,
}

/// What one failing row does to a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnError {
    /// The step fails.
    #[default]
    Stop,
    /// The key and its error are kept, and the rest goes on.
    Collect,
}

/// What `load` does to a row that is there already.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LoadConflict {
    /// The row with the larger `newest` column stays.
    KeepNewest,
    /// The row with the smaller `newest` column stays.
    KeepOldest,
    /// Shipped values fill columns that are NULL.
    Merge,
    /// The shipped row wins.
    Replace,
    /// The row that is there stays.
    #[default]
    Skip,
}

/// What becomes of one table and of the unsent edits of its rows. Names are those before the migration, unless said.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Carry {
    /// The table as it was called before.
    pub table: String,
    /// Its name afterwards: its new one where it changed; its old one where a table of that name is still the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// The table goes, and what becomes of its unsent edits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone: Option<DropPolicy>,
    /// Columns that changed their name: old to new.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub rename: BTreeMap<String, String>,
    /// Columns that go, and what becomes of their unsent values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub drop: BTreeMap<String, DropPolicy>,
    /// One column that becomes several: old name to new ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub split: BTreeMap<String, Vec<String>>,
    /// Several columns that become one: new name to old ones.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub merge: BTreeMap<String, Vec<String>>,
    /// How an old key becomes a new one: new key column to an expression over the old row.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub key: BTreeMap<String, String>,
    /// New tables into which a part of each row moves, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub into: BTreeMap<String, Part>,
}

/// The part of a row that moves into another table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The new table's key columns, each with the old table's key column whose value it has.
    pub key: BTreeMap<String, String>,
    /// Columns that move: old name to the name in the new table.
    pub columns: BTreeMap<String, String>,
}

/// What becomes of an unsent value whose column goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DropPolicy {
    /// It is kept in the archive.
    Archive,
    /// It goes.
    Discard,
    /// The migration waits until it is sent.
    Block,
}

/// How one table exchanges rows, as far as a migration says it: what is not said stays as it was in the version before,
/// and has its default in the first version that names the table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SyncTable {
    /// Who wins a concurrent edit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub conflict: Option<SyncConflict>,
    /// Which way rows go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// How keys made on two devices are kept apart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keys: Option<Keys>,
    /// The oldest version whose edits of this table can still be taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_schema: Option<MinSchema>,
    /// The table exchanges no rows any more, and what becomes of its unsent edits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<DropPolicy>,
}

/// A version, as a migration says it that does not know its own number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RawMinSchema", into = "RawMinSchema")]
pub enum MinSchema {
    /// The one in whose manifest it stands: `"this"`.
    This,
    /// That one.
    Version(u32),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "min_schema is \"this\" or the number of a version, from 1")]
enum RawMinSchema {
    Number(u32),
    Word(String),
}

impl TryFrom<RawMinSchema> for MinSchema {
    type Error = String;
    fn try_from(raw: RawMinSchema) -> Result<Self, String> {
        match raw {
            RawMinSchema::Word(word) if word == "this" => Ok(Self::This),
            RawMinSchema::Number(version) if version > 0 => Ok(Self::Version(version)),
            RawMinSchema::Word(_) | RawMinSchema::Number(_) => Err("min_schema is \"this\" or the number of a version, from 1".to_owned()),
        }
    }
}

impl From<MinSchema> for RawMinSchema {
    fn from(min: MinSchema) -> Self {
        match min {
            MinSchema::This => Self::Word("this".to_owned()),
            MinSchema::Version(version) => Self::Number(version),
        }
    }
}

/// Who wins a concurrent edit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncConflict {
    /// The later clock, per row.
    #[default]
    KeepNewest,
    /// The earlier clock, per row.
    KeepOldest,
    /// What arrived at the server first.
    ServerWins,
    /// What arrived at the server last.
    ClientWins,
    /// The later clock, per column.
    Merge,
}

/// Which way rows go.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Up and down.
    #[default]
    Both,
    /// Device to server.
    Push,
    /// Server to device.
    Pull,
}

/// How keys made on two devices are kept apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keys {
    /// UUIDs and natural keys: the same key is the same thing.
    Global,
    /// The later row gets a free key, and declared foreign keys follow.
    Renumber,
}

/// A step as it is written: one table with the keys of all kinds, told apart by which of five it has.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct RawStep {
    #[serde(skip_serializing_if = "Option::is_none")]
    sql: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verify: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backfill: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    set: Option<String>,
    #[serde(rename = "where", skip_serializing_if = "Option::is_none")]
    filter: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    on_error: Option<OnError>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    into: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    conflict: Option<LoadConflict>,
    #[serde(skip_serializing_if = "Option::is_none")]
    newest: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    clear_existing: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    since: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    rebuild: Option<String>,
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    shape: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    values: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    drop: Option<Vec<String>>,
}

impl TryFrom<RawStep> for Step {
    type Error = String;
    fn try_from(raw: RawStep) -> Result<Self, String> {
        let need = |value: Option<String>, key: &str, kind: &str| value.ok_or_else(|| format!("a {kind} step needs `{key}`"));
        let kinds = [&raw.sql, &raw.verify, &raw.backfill, &raw.load, &raw.rebuild].into_iter().flatten().count();
        if kinds != 1 {
            return Err("a step has exactly one of `sql`, `verify`, `backfill`, `load` and `rebuild`".to_owned());
        }
        let on_error = raw.on_error.unwrap_or_default();
        let step = if let Some(table) = raw.backfill {
            Self::Backfill(Backfill {
                table,
                set: need(raw.set.clone(), "set", "backfill")?,
                filter: need(raw.filter.clone(), "where", "backfill")?,
                on_error,
                batch: raw.batch,
            })
        } else if let Some(file) = raw.load {
            Self::Load(Load {
                file,
                into: need(raw.into.clone(), "into", "load")?,
                key: raw.key.clone().ok_or("a load step needs `key`")?,
                conflict: raw.conflict.unwrap_or_default(),
                newest: raw.newest.clone(),
                clear_existing: raw.clear_existing.unwrap_or(false),
                since: raw.since.unwrap_or(false),
                on_error,
                batch: raw.batch,
            })
        } else if let Some(table) = raw.rebuild {
            Self::Rebuild(Rebuild {
                table,
                file: need(raw.shape.clone(), "as", "rebuild")?,
                values: raw.values.clone().unwrap_or_default(),
                drop: raw.drop.clone().unwrap_or_default(),
                batch: raw.batch,
            })
        } else if let Some(file) = raw.sql {
            Self::Sql { file }
        } else {
            Self::Verify { file: raw.verify.unwrap_or_default() }
        };
        // A key of another kind of step would be silently without effect: say so instead.
        let backfill_keys = raw.set.is_some() || raw.filter.is_some();
        let load_keys = raw.into.is_some()
            || raw.key.is_some()
            || raw.conflict.is_some()
            || raw.newest.is_some()
            || raw.clear_existing.is_some()
            || raw.since.is_some();
        let rebuild_keys = raw.shape.is_some() || raw.values.is_some() || raw.drop.is_some();
        let row_keys = raw.on_error.is_some() || raw.batch.is_some();
        let stray = match &step {
            Self::Sql { .. } | Self::Verify { .. } => backfill_keys || load_keys || rebuild_keys || row_keys,
            Self::Backfill(_) => load_keys || rebuild_keys,
            Self::Load(_) => backfill_keys || rebuild_keys,
            // A row that was left out would be lost: there is no `on_error`.
            Self::Rebuild(_) => backfill_keys || load_keys || raw.on_error.is_some(),
        };
        if stray { Err(format!("a {} step has a key that belongs to another kind of step", step.kind())) } else { Ok(step) }
    }
}

impl From<Step> for RawStep {
    fn from(step: Step) -> Self {
        let chosen = |on_error: OnError| (on_error != OnError::default()).then_some(on_error);
        match step {
            Step::Sql { file } => Self { sql: Some(file), ..Self::default() },
            Step::Verify { file } => Self { verify: Some(file), ..Self::default() },
            Step::Backfill(b) => Self {
                backfill: Some(b.table),
                set: Some(b.set),
                filter: Some(b.filter),
                on_error: chosen(b.on_error),
                batch: b.batch,
                ..Self::default()
            },
            Step::Load(l) => Self {
                load: Some(l.file),
                into: Some(l.into),
                key: Some(l.key),
                conflict: Some(l.conflict),
                newest: l.newest,
                clear_existing: Some(l.clear_existing),
                since: l.since.then_some(true),
                on_error: chosen(l.on_error),
                batch: l.batch,
                ..Self::default()
            },
            Step::Rebuild(r) => Self {
                rebuild: Some(r.table),
                shape: Some(r.file),
                values: (!r.values.is_empty()).then_some(r.values),
                drop: (!r.drop.is_empty()).then_some(r.drop),
                batch: r.batch,
                ..Self::default()
            },
        }
    }
}

impl Manifest {
    /// Parses a `migration.toml`. The error has line, column and the keys that would be right.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: &str = r#"
description = "Slugs for notes"
mode    = "online"
min_app = "2.3.0"
max_lock = "2s"
timeout = "10m"
foreign_keys = "off"
backup  = "auto"
destructive = false
[[step]]
sql = "up.sql"
[[step]]
backfill = "notes"
set      = "slug = lower(replace(title, ' ', '-'))"
where    = "slug IS NULL"
on_error = "collect"
[[step]]
load     = "cards.ndjson"
into     = "cards"
key      = ["id"]
conflict = "merge"
clear_existing = false
[[step]]
rebuild = "notes"
as      = "notes.sql"
values  = { body = "coalesce(body, '')" }
drop    = ["notes_old"]
[[step]]
verify = "verify.sql"
[[carry]]
table = "person"
rename = { first = "given" }
drop   = { zip = "archive" }
[[carry]]
table = "contact"
to = "address"
split = { name = ["given", "surname"] }
merge = { phone = ["area", "number"] }
key = { uuid = "lower(hex(id))" }
[carry.into.place]
key = { contact = "id" }
columns = { street = "street" }
[[carry]]
table = "old"
gone = "block"
[sync.notes]
conflict = "keep-newest"
direction = "both"
keys = "renumber"
min_schema = "this"
[sync.person]
min_schema = 2
[sync.old]
stop = "discard"
"#;

    #[test]
    fn the_whole_manifest_of_the_design_parses_and_survives_json() {
        let manifest = Manifest::parse(FULL).unwrap();
        assert_eq!(manifest.step.len(), 5);
        let json = serde_json::to_string(&manifest).unwrap();
        assert_eq!(serde_json::from_str::<Manifest>(&json).unwrap(), manifest);
    }

    #[test]
    fn a_wrong_key_is_refused_with_its_line() {
        let error = Manifest::parse("mode = \"atomic\"\ndestuctive = true\n").unwrap_err();
        assert!(error.to_string().contains("line 2"), "{error}");
        assert!(error.to_string().contains("destuctive"), "{error}");
        let error = Manifest::parse("[[carry]]\ntable = \"a\"\ndrop = { zip = \"arch\" }\n").unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("`archive`, `discard`, `block`"), "{error}");
        let error = Manifest::parse("[sync.a]\nmin_schema = \"that\"\n").unwrap_err().to_string();
        assert!(error.contains("line 2") && error.contains("min_schema is"), "{error}");
        for bad in [
            "[[step]]\n",
            "[[step]]\nsql='a'\nverify='b'\n",
            "[[step]]\nsql='a'\nwhere='b'\n",
            "[[step]]\nbackfill='t'\n",
            "[[step]]\nrebuild='t'\n",
            "[[step]]\nrebuild='t'\nas='t.sql'\non_error='collect'\n",
        ] {
            assert!(Manifest::parse(bad).is_err(), "{bad}");
        }
    }
}
