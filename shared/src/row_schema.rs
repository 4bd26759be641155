//! What is known of rows at one version of a chain: ids, and which tables exchange rows. The chain's links one on top of
//! the other. Pure.

use crate::{
    columns::ColumnMap,
    ledger::{ColumnChange, Ledger},
    migration::Link,
    synced::{SyncChange, SyncedTables},
};

/// The ids and settings of rows at one version; nothing at version 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowSchema {
    ledger: Ledger,
    synced: SyncedTables,
    /// The first version that was published without ids.
    without: Option<u32>,
}

/// Why rows cannot be exchanged at a version at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "version {version} was published without column ids (a server of the seed form has none, and so has a whimbrel before them), so no rows can be exchanged from it on"
)]
pub struct NoIds {
    /// The first such version.
    pub version: u32,
}

impl RowSchema {
    /// Moves past the first revision of the next version. Refuses, in words, what `publish` never makes; after that it is
    /// of no further use.
    pub fn pass(&mut self, link: &Link) -> Result<(), String> {
        self.advance(link.version, link.columns.as_ref(), &link.sync)
    }

    /// [`Self::pass`] by what matters of a link.
    pub fn advance(&mut self, version: u32, columns: Option<&ColumnChange>, sync: &SyncChange) -> Result<(), String> {
        match (columns, self.without) {
            (None, _) if !sync.is_empty() => Err("it says which tables exchange rows, and gives no column ids".to_owned()),
            (None, _) => {
                self.without = self.without.or(Some(version));
                Ok(())
            }
            (Some(_), Some(without)) => Err(format!("it gives column ids, and version {without} before it has none")),
            (Some(change), None) => {
                self.ledger.apply(change).map_err(|e| e.to_string())?;
                self.synced.apply(sync, |id| self.ledger.table(id)).map_err(|e| e.to_string())
            }
        }
    }

    /// The ids; the reason where the chain has none up to here.
    pub fn ledger(&self) -> Result<&Ledger, NoIds> {
        match self.without {
            None => Ok(&self.ledger),
            Some(version) => Err(NoIds { version }),
        }
    }

    /// The map; the reason where the chain has none up to here.
    pub fn map(&self) -> Result<ColumnMap, NoIds> {
        self.ledger().map(Ledger::map)
    }

    /// The tables that exchange rows.
    pub fn synced(&self) -> &SyncedTables {
        &self.synced
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(version: u32, rest: &str) -> Link {
        serde_json::from_str(&format!(r#"{{"name":"m{version}","version":{version},"revision":1{rest}}}"#)).unwrap()
    }

    #[test]
    fn from_the_first_version_without_ids_on_there_are_none_and_the_reason_is_told() {
        let mut at = RowSchema::default();
        at.pass(&link(
            1,
            r#","columns":{"made":[[1,"a",[[1,"id"]]]]},"sync":{"tables":[{"table":1,"direction":"both","conflict":"merge","key":[[1,"binary"]]}]}"#,
        ))
        .unwrap();
        assert_eq!((at.map().unwrap().tables.len(), at.synced().0.len()), (1, 1));
        at.pass(&link(2, "")).unwrap();
        assert_eq!(at.map().unwrap_err(), NoIds { version: 2 });
        assert!(at.clone().pass(&link(3, r#","columns":{}"#)).unwrap_err().contains("version 2 before it has none"));
        assert!(at.pass(&link(3, r#","sync":{"stopped":[[1,"archive"]]}"#)).unwrap_err().contains("no column ids"));
    }
}
