//! A chunk of rows that an online migration writes while the application's own triggers fire, and ours with them: what it
//! and they wrote is no edit.

use std::collections::{BTreeSet, HashMap};

use rusqlite::Connection;

use super::rewritten::record;
use crate::{
    store::{journal, key::Key, outbox::Outbox},
    sync::{
        capture::captured,
        error::SyncError,
        fold::{Boot, Origin, fold},
        rows::{Columns, Rows},
    },
};

/// Rows of the journal that are read at once.
const AT_ONCE: usize = 8_192;

/// A chunk that was begun. The transaction in which it was is the one in which it ends.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    /// The newest note of the application's own.
    seq: i64,
}

impl Chunk {
    /// Before the chunk's statements, inside its transaction: what the application wrote before it is folded. `None`: the
    /// file captures nothing.
    pub fn begin(connection: &Connection, boot: &Boot, now_ms: i64) -> Result<Option<Self>, SyncError> {
        if !journal::is_there(connection)? {
            return Ok(None);
        }
        fold(connection, boot, Origin::App, now_ms, None)?;
        Ok(Some(Self { seq: journal::extent(connection)?.last }))
    }

    /// After them: what was noted since is recorded as what the rows hold, and taken back.
    pub fn end(self, connection: &Connection) -> Result<(), SyncError> {
        let last = journal::extent(connection)?.last;
        if last == self.seq {
            return Ok(());
        }
        let tables = captured(connection)?;
        let columns = |id: u32| tables.iter().find(|t| t.id == id).map(|t| t.key.len());
        let (mut outbox, mut rows) = (Outbox::open(connection)?, HashMap::new());
        let mut seq = self.seq;
        loop {
            let mut keys: BTreeSet<(u32, Key)> = BTreeSet::new();
            let read = journal::rows_after(connection, (seq, last), AT_ONCE, &columns, &mut |note| {
                keys.insert((note.table, note.key));
            })?;
            for (id, spelled) in keys {
                let Some(table) = tables.iter().find(|t| t.id == id) else { continue };
                let now = rows.entry(id).or_insert_with(|| Rows::new(connection, table)).read(&spelled, Columns::All)?;
                record(&mut outbox, id, &spelled.canonical(&table.collations()), now.as_ref())?;
            }
            match read {
                Some((end, _)) if end < last => seq = end,
                Some(_) | None => break,
            }
        }
        Ok(journal::take_back(connection, self.seq)?)
    }
}
