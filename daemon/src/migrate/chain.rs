//! The accepted chain of one app, in memory. Pure.

use whimbrel_shared::{
    fingerprint::Schema,
    migration::TargetEntry,
    row_schema::{NoIds, RowSchema},
};

/// Accepted entries, by version, then revision.
#[derive(Clone, Debug, Default)]
pub struct Chain {
    versions: Vec<Vec<TargetEntry>>,
}

impl Chain {
    /// From entries in chain order. Stops at the first gap: what comes after it cannot be applied.
    pub fn new(entries: Vec<TargetEntry>) -> Self {
        let mut versions: Vec<Vec<TargetEntry>> = Vec::new();
        for entry in entries {
            let version = entry.custom.version as usize;
            if version == versions.len() + 1 {
                versions.push(vec![entry]);
            } else if version == versions.len() && version > 0 {
                versions[version - 1].push(entry);
            } else {
                break;
            }
        }
        Self { versions }
    }

    /// The newest version.
    pub fn latest(&self) -> u32 {
        self.versions.len() as u32
    }

    /// The newest revision of a version.
    pub fn newest(&self, version: u32) -> Option<&TargetEntry> {
        self.revisions(version).last()
    }

    /// All revisions of a version, oldest first.
    pub fn revisions(&self, version: u32) -> &[TargetEntry] {
        version.checked_sub(1).and_then(|at| self.versions.get(at as usize)).map_or(&[], Vec::as_slice)
    }

    /// The chain's objects after `version`; none where a link up to it was published without a rehearsal.
    pub fn schema_at(&self, version: u32) -> Option<Schema> {
        let mut schema = Schema::default();
        for at in 1..=version {
            self.extend(&mut schema, at)?;
        }
        Some(schema)
    }

    /// Why a file at `version` cannot exchange rows at all, where that is so.
    pub fn without_ids(&self, version: u32) -> Option<NoIds> {
        let mut slots = self.versions.iter().take(version as usize).filter_map(|revisions| revisions.first());
        slots.find(|slot| slot.custom.columns.is_none()).map(|slot| NoIds { version: slot.custom.version })
    }

    /// The ids of tables and columns, and which tables exchange rows, at `version`. The error says in words what cannot be:
    /// the chain was checked when it was accepted, so it is damaged.
    pub fn rows_at(&self, version: u32) -> Result<RowSchema, String> {
        let mut rows = RowSchema::default();
        for slot in self.versions.iter().take(version as usize).filter_map(|revisions| revisions.first()) {
            rows.pass(&slot.custom).map_err(|why| format!("version {}: {why}", slot.custom.version))?;
        }
        Ok(rows)
    }

    /// The schema half-way through `version`, an online migration, after so many of its `sql` steps.
    pub fn schema_within(&self, version: u32, revision: u32, steps: u32) -> Option<Schema> {
        let mut schema = self.schema_at(version - 1)?;
        let link = &self.revisions(version).iter().find(|e| e.custom.revision == revision)?.custom;
        for change in link.steps.get(..steps as usize)? {
            schema.apply(change);
        }
        Some(schema)
    }

    /// Takes `schema` from the version before `version` to `version`.
    pub fn extend(&self, schema: &mut Schema, version: u32) -> Option<()> {
        schema.apply(self.newest(version)?.custom.schema.as_ref()?);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reads_ids_from_the_chain_that_it_keeps() {
        let entry = |version: u32, rest: &str| -> TargetEntry {
            let custom = format!(r#"{{"name":"m{version}","version":{version},"revision":1{rest}}}"#);
            let hash = "0".repeat(64);
            serde_json::from_str(&format!(r#"{{"length":1,"hashes":{{"sha256":"{hash}"}},"custom":{custom}}}"#)).unwrap()
        };
        let made = r#","columns":{"made":[[1,"notes",[[1,"id"],[2,"title"]]]]}"#;
        let chain = Chain::new(vec![entry(1, made), entry(2, r#","columns":{"made":[[1,"notes",[[1,"id"],[2,"heading"]]]]}"#), entry(3, "")]);
        let name = |version: u32| chain.rows_at(version).unwrap().map().map(|map| map.tables[0].columns[1].name.clone());
        assert_eq!((name(1), name(2)), (Ok("title".to_owned()), Ok("heading".to_owned())));
        assert_eq!((name(3), chain.without_ids(3), chain.without_ids(2)), (Err(NoIds { version: 3 }), Some(NoIds { version: 3 }), None));
        let damaged = Chain::new(vec![entry(1, made), entry(2, r#","columns":{"dropped":[9]}"#)]);
        assert!(damaged.rows_at(2).unwrap_err().contains("version 2: it drops the table with id 9"));
    }
}
