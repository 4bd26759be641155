//! The files of a new migration in our layout. Pure.

use whimbrel_shared::ids::{BadId, MigrationName};

use super::listing::Listing;

/// Its name: the next number, and the title with its blanks as underscores.
pub fn name(listing: &Listing, title: &str) -> Result<MigrationName, BadId> {
    let digits = |path: &str| path.bytes().take_while(u8::is_ascii_digit).count();
    let next = listing.paths().filter_map(|path| path[..digits(path)].parse::<u64>().ok()).max().map_or(1, |n| n.saturating_add(1));
    let title: Vec<&str> = title.split_whitespace().collect();
    format!("{next:04}_{}", title.join("_")).parse()
}

/// The files, each with its name and text.
pub const FILES: [(&str, &str); 3] = [("up.sql", UP), ("down.sql", DOWN), ("migration.toml", MANIFEST)];

const UP: &str = "\
-- What changes. It runs in one transaction that whimbrel opens and commits: write no BEGIN and no COMMIT.
--
--   CREATE TABLE notes (
--       id    TEXT PRIMARY KEY,
--       title TEXT NOT NULL DEFAULT ''
--   );
--
-- To change a table beyond ADD COLUMN: make it anew under another name, copy, drop the old one, rename.
-- Foreign keys do not act meanwhile, and are checked at the end.
";

const DOWN: &str = "\
-- How it is taken back. `whimbrel rehearse` checks that this restores the schema as it was.
-- Without a statement here, the migration cannot be reverted.
--
--   DROP TABLE notes;
";

const MANIFEST: &str = "\
# Everything here may be left out; what stands in a comment is what happens then.
# description = \"\"
# min_app = \"2.3.0\"         # app builds older than this cannot live with the new schema
# mode = \"atomic\"          # one transaction; online: rows in short resumable ones
# max_lock = \"2s\"           # longest write lock
# timeout = \"10m\"
# foreign_keys = \"off\"      # off + a check at the end; on: cascades are wanted, and no table may be dropped
# legacy_alter_table = \"off\" # down: on the way down, renaming a table leaves the references of others
# backup = \"auto\"           # auto: when a step is destructive; always; never
# destructive = false       # lint refuses what loses data unless this says true

# Steps, in order. Without any: up.sql, then verify.sql where there is one.
# [[step]]
# sql = \"up.sql\"
#
# [[step]]
# backfill = \"notes\"       # rows that are there: what matches `where` still needs it
# set = \"slug = lower(title)\"
# where = \"slug IS NULL\"
#
# [[step]]
# load = \"cards.ndjson\"    # rows that come along, put in by key
# into = \"cards\"
# key = [\"id\"]
#
# [[step]]
# verify = \"verify.sql\"     # every statement returns no row, or one row whose only column is true

# [sync.notes]              # tables that exchange rows, from this version on
# conflict = \"keep-newest\"
";

#[cfg(test)]
mod tests {
    use whimbrel_shared::manifest::Manifest;

    use super::*;
    use crate::publish::{layout, listing::Content};

    #[test]
    fn a_new_migration_has_the_next_number_and_files_that_publish_as_they_are() {
        let mut listing = Listing::default();
        assert_eq!(name(&listing, "init").unwrap().as_str(), "0001_init");
        for path in ["0001_init/up.sql", "0009_x/up.sql", "README.md"] {
            listing.files.insert(path.to_owned(), Content::Text(String::new()));
        }
        let name = name(&listing, " add  slugs ").unwrap();
        assert_eq!(name.as_str(), "0010_add_slugs");
        for (file, text) in FILES {
            listing.files.insert(format!("{name}/{file}"), Content::Text(text.to_owned()));
        }
        let chain = layout::read(&listing, None).unwrap();
        let new = chain.migrations.last().unwrap();
        assert_eq!((chain.layout, new.migration.down.as_deref(), &new.migration.manifest), (layout::Layout::Whimbrel, None, &Manifest::default()));
        assert!(super::name(&listing, "a/b").is_err());
    }

    #[test]
    fn the_manifest_says_the_defaults() {
        // What stands in comments, with the marks taken off, must be a manifest, and mean what no manifest means.
        let keys = |line: &&str| !line.is_empty() && (line.contains(" = ") && !line.contains("  sql") || line.starts_with('['));
        let text: String = MANIFEST.lines().map(|line| line.trim_start_matches("# ")).filter(keys).map(|line| format!("{line}\n")).collect();
        let mut manifest = Manifest::parse(&text).unwrap();
        assert_eq!(manifest.min_app.take().as_deref(), Some("2.3.0"));
        assert_eq!((manifest.step.len(), manifest.sync.len()), (4, 1));
        manifest.step.clear();
        manifest.sync.clear();
        assert_eq!(manifest, Manifest::default());
    }
}
