//! One migration as bytes that are signed, stored and hashed, and its place in the chain. Pure.
//!
//! The split is TUF's: the *target file* is what the publisher wrote (manifest and files); what orders and describes it
//! (`version`, `revision`, `previous`, the expected schema) stands in the targets metadata, in `custom`
//! (<https://theupdateframework.github.io/specification/>, 4.5).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    fingerprint::SchemaChange,
    ids::{AppName, Digest, MigrationName},
    ledger::ColumnChange,
    lift::Lift,
    manifest::{Manifest, Step},
    synced::SyncChange,
};

/// The `format` of a target file.
pub const FORMAT: &str = "whimbrel.migration/1";
/// Largest target file: bodies are held in memory, and a device reads only what fits.
pub const MAX_BODY_BYTES: u64 = 16 * 1024 * 1024;
/// Most files in one migration.
pub const MAX_FILES: usize = 64;
/// Most migrations in one app's chain.
pub const MAX_CHAIN: usize = 10_000;

/// What a publisher wrote: the content of one target file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Migration {
    /// [`FORMAT`].
    pub format: String,
    /// Its name, unique in the app.
    pub name: MigrationName,
    /// `migration.toml`, or its defaults.
    pub manifest: Manifest,
    /// Name of the file with the down step, where there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<String>,
    /// Content of every file, by name.
    pub files: BTreeMap<String, String>,
}

impl Migration {
    /// The bytes that are hashed, signed and sent. The same migration always gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a migration has only text keys and plain values")
    }

    /// Reads what [`Migration::to_bytes`] wrote, bounded and checked: the format is known, and every file that a step
    /// names is there.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, BadMigration> {
        if bytes.len() as u64 > MAX_BODY_BYTES {
            return Err(BadMigration::TooLarge { size_bytes: bytes.len() as u64 });
        }
        #[derive(Deserialize)]
        struct Head {
            format: String,
        }
        let head: Head = serde_json::from_slice(bytes).map_err(|e| BadMigration::NotJson(e.to_string()))?;
        if head.format != FORMAT {
            return Err(BadMigration::UnknownFormat(head.format.chars().take(80).collect()));
        }
        let migration: Self = serde_json::from_slice(bytes).map_err(|e| BadMigration::NotJson(e.to_string()))?;
        migration.check()?;
        Ok(migration)
    }

    /// The steps up, with the default of a manifest that names none: `up.sql`, then `verify.sql` where there is one.
    pub fn steps(&self) -> Vec<Step> {
        if !self.manifest.step.is_empty() {
            return self.manifest.step.clone();
        }
        let mut steps = Vec::new();
        if self.files.contains_key("up.sql") {
            steps.push(Step::Sql { file: "up.sql".to_owned() });
        }
        if self.files.contains_key("verify.sql") {
            steps.push(Step::Verify { file: "verify.sql".to_owned() });
        }
        steps
    }

    /// Text of one of its files.
    pub fn file(&self, name: &str) -> Option<&str> {
        self.files.get(name).map(String::as_str)
    }

    /// Whether two texts of a migration mean the same. Line endings and a byte-order mark do not count, so that a
    /// checkout on another system publishes as a no-op.
    pub fn same_source(&self, other: &Self) -> bool {
        let files = |m: &Self| -> BTreeMap<String, String> {
            m.files.iter().map(|(name, text)| (name.clone(), text.trim_start_matches('\u{feff}').replace("\r\n", "\n"))).collect()
        };
        self.name == other.name && self.manifest == other.manifest && self.down == other.down && files(self) == files(other)
    }

    fn check(&self) -> Result<(), BadMigration> {
        if self.files.len() > MAX_FILES {
            return Err(BadMigration::TooManyFiles { files: self.files.len() });
        }
        let missing =
            self.steps().iter().filter_map(Step::file).chain(self.down.as_deref()).find(|f| !self.files.contains_key(*f)).map(str::to_owned);
        match missing {
            Some(file) => Err(BadMigration::MissingFile { name: self.name.clone(), file }),
            None => Ok(()),
        }
    }
}

/// Why bytes are not a migration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMigration {
    /// Over [`MAX_BODY_BYTES`].
    #[error("the migration has {size_bytes} bytes; at most {MAX_BODY_BYTES} are read")]
    TooLarge {
        /// Its size.
        size_bytes: u64,
    },
    /// Over [`MAX_FILES`].
    #[error("the migration has {files} files; at most {MAX_FILES} are read")]
    TooManyFiles {
        /// How many.
        files: usize,
    },
    /// Not the JSON that was expected.
    #[error("the migration cannot be read: {0}")]
    NotJson(String),
    /// Written by a later Whimbrel.
    #[error("the migration has format {0:?}, and this whimbrel reads {FORMAT:?}")]
    UnknownFormat(String),
    /// A step names a file that is not there.
    #[error("migration {name} names the file {file:?}, which it does not have")]
    MissingFile {
        /// The migration.
        name: MigrationName,
        /// The file.
        file: String,
    },
}

/// Where a migration stands in its chain, and what it leaves behind: `custom` of its target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Link {
    /// The migration.
    pub name: MigrationName,
    /// 1, 2, 3 …
    pub version: u32,
    /// 1 as first published; a higher one mends it for those who have not completed it.
    pub revision: u32,
    /// Digest of the predecessor's first revision; none for version 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Digest>,
    /// Digest of this version's first revision, in later revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mends: Option<Digest>,
    /// What this version does to the chain's schema, object by object; none where nobody rehearsed (seed form).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<SchemaChange>,
    /// Of a migration in mode online, what each of its `sql` steps does: a half-way state is known by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<SchemaChange>,
    /// Oldest SQLite library that can read the resulting schema, such as `3.37.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_sqlite: Option<String>,
    /// What this version does to the ids of tables and columns; none where nobody rehearsed (seed form), and then rows
    /// cannot be exchanged from here on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub columns: Option<ColumnChange>,
    /// What this version does to which tables exchange rows, and how.
    #[serde(default, skip_serializing_if = "SyncChange::is_empty")]
    pub sync: SyncChange,
    /// Its backfills of tables that exchange rows, as they are repeated for a row that an older version wrote.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lifts: Vec<Lift>,
}

impl Link {
    /// The first revision of a version of which nothing more is known: nobody rehearsed it.
    pub fn new(name: MigrationName, version: u32, previous: Option<Digest>) -> Self {
        Self {
            name,
            version,
            revision: 1,
            previous,
            mends: None,
            schema: None,
            steps: Vec::new(),
            min_sqlite: None,
            columns: None,
            sync: SyncChange::default(),
            lifts: Vec::new(),
        }
    }
}

/// The digests of a target file, as TUF writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hashes {
    /// SHA-256 of the bytes.
    pub sha256: Digest,
}

/// One entry of the targets metadata.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TargetEntry {
    /// Length of the target file in bytes.
    pub length: u64,
    /// Its digests.
    pub hashes: Hashes,
    /// Its place in the chain.
    pub custom: Link,
}

impl TargetEntry {
    /// The entry for `body`, standing at `link`.
    pub fn new(body: &[u8], link: Link) -> Self {
        Self { length: body.len() as u64, hashes: Hashes { sha256: Digest::of(body) }, custom: link }
    }

    /// The digest of the bytes.
    pub fn digest(&self) -> Digest {
        self.hashes.sha256
    }

    /// Its file name in the repository.
    pub fn path(&self) -> String {
        target_path(&self.custom.name, self.custom.revision)
    }
}

/// Name of the target file of one revision of a migration.
pub fn target_path(name: &MigrationName, revision: u32) -> String {
    format!("{name}.r{revision}.json")
}

/// The targets of one app: the part of TUF's `targets.json` that the chain needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targets {
    /// The app.
    pub app: AppName,
    /// Grows with every publish.
    pub version: u64,
    /// Every published revision, by its path.
    pub targets: BTreeMap<String, TargetEntry>,
}

impl Targets {
    /// The entries in chain order: by version, then revision.
    pub fn chain(&self) -> Vec<&TargetEntry> {
        let mut chain: Vec<_> = self.targets.values().collect();
        chain.sort_by_key(|entry| (entry.custom.version, entry.custom.revision));
        chain
    }
}

/// The seed systems' form of a migration (`seeds/003`), both ways.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SeedMigration {
    /// Milliseconds since 1970, as the seed's tools name their files. Some write it as text.
    #[serde(deserialize_with = "number_or_text")]
    pub timestamp: i64,
    /// Its name.
    pub migration_name: MigrationName,
    /// Statements up, in order.
    #[serde(deserialize_with = "list_or_json_text")]
    pub up_queries: Vec<String>,
    /// Statements down, in order.
    #[serde(default, deserialize_with = "list_or_json_text")]
    pub down_queries: Vec<String>,
    /// For the asking client alone.
    #[serde(default)]
    pub client_applied: bool,
}

impl SeedMigration {
    /// The same migration in our form: each list becomes one file, one statement after the other.
    pub fn to_migration(&self) -> Migration {
        let join = |queries: &[String]| -> String {
            let mut text = String::new();
            for query in queries {
                let query = query.trim_end();
                text.push_str(query);
                // A comment at the end would swallow a semicolon on its own line.
                text.push_str(if query.ends_with(';') { "\n" } else { "\n;\n" });
            }
            text
        };
        let mut files = BTreeMap::from([("up.sql".to_owned(), join(&self.up_queries))]);
        let down = (!self.down_queries.is_empty()).then(|| {
            files.insert("down.sql".to_owned(), join(&self.down_queries));
            "down.sql".to_owned()
        });
        Migration { format: FORMAT.to_owned(), name: self.migration_name.clone(), manifest: Manifest::default(), down, files }
    }
}

fn number_or_text<'de, D: serde::Deserializer<'de>>(d: D) -> Result<i64, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(i64),
        Text(String),
    }
    match Either::deserialize(d)? {
        Either::Number(n) => Ok(n),
        Either::Text(t) => t.trim().parse().map_err(|_| serde::de::Error::custom("timestamp is not a whole number")),
    }
}

fn list_or_json_text<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        List(Vec<String>),
        Text(String),
        Null(()),
    }
    match Either::deserialize(d)? {
        Either::List(list) => Ok(list),
        // The seed's store keeps the list as JSON text and some servers hand it out as it lies there.
        Either::Text(text) => serde_json::from_str(&text).map_err(|_| serde::de::Error::custom("queries are neither a list nor JSON text of one")),
        Either::Null(()) => Ok(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn migration(sql: &str) -> Migration {
        Migration {
            format: FORMAT.to_owned(),
            name: "0001_init".parse().unwrap(),
            manifest: Manifest::default(),
            down: None,
            files: BTreeMap::from([("up.sql".to_owned(), sql.to_owned())]),
        }
    }

    #[test]
    fn line_endings_and_a_byte_order_mark_do_not_change_what_was_published() {
        assert!(migration("a;\nb;\n").same_source(&migration("\u{feff}a;\r\nb;\r\n")));
        assert!(!migration("a;").same_source(&migration("b;")));
    }

    #[test]
    fn bytes_from_outside_are_checked() {
        let good = migration("a;");
        assert_eq!(Migration::from_bytes(&good.to_bytes()).unwrap(), good);
        assert!(matches!(Migration::from_bytes(b"{\"format\":\"whimbrel.migration/9\"}"), Err(BadMigration::UnknownFormat(_))));
        assert!(matches!(Migration::from_bytes(b"\xff\xfe"), Err(BadMigration::NotJson(_))));
        let mut dangling = migration("a;");
        dangling.down = Some("down.sql".to_owned());
        assert!(matches!(Migration::from_bytes(&dangling.to_bytes()), Err(BadMigration::MissingFile { .. })));
    }

    #[test]
    fn seed_queries_may_end_in_a_comment() {
        let seed: SeedMigration = serde_json::from_str(
            r#"{"timestamp":"1700000000000","migrationName":"Init1700000000000","upQueries":"[\"CREATE TABLE a(x) -- done\",\"CREATE TABLE b(x);\"]","downQueries":null}"#,
        )
        .unwrap();
        assert_eq!(seed.to_migration().files["up.sql"], "CREATE TABLE a(x) -- done\n;\nCREATE TABLE b(x);\n");
    }
}
