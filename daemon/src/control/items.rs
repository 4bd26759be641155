//! What the socket tells of an application's rows: those that steps left out, and how many there are. Both are read from
//! the files when they are asked for, and stay on this machine.

use std::{path::PathBuf, sync::PoisonError};

use whimbrel_shared::protocol::state::Severity;

use super::{
    protocol::{FailedItemView, MAX_LINE_BYTES, Reply, Selector, TablesView},
    server::{Desk, View},
};
use crate::migrate::{error::ApplyError, gate, items, tables};

/// Bytes of rows in one answer. Beside it a line has room for what surrounds them and for JSON's escapes.
const MOST_ROW_BYTES: usize = MAX_LINE_BYTES / 8;

impl Desk {
    /// Rows that were left out: as many as are asked for and fit into an answer; the total is of all.
    pub(super) fn failed_items(&self, database: &Selector, limit: u32) -> Reply {
        let views = match self.views_of(database) {
            Ok(views) => views,
            Err(refusal) => return refusal,
        };
        let (mut found, mut total, mut bytes) = (Vec::new(), 0, 0);
        for (path, view) in views {
            let room = limit.saturating_sub(u32::try_from(found.len()).unwrap_or(u32::MAX));
            let (rows, all) = match items::failed(&self.shared, &view.site, room) {
                Ok(rows) => rows,
                Err(error) => return refused(&path, &error),
            };
            total += all;
            for row in rows {
                bytes += row.item.len() + row.message.len() + row.row.as_ref().map_or(0, String::len);
                if bytes > MOST_ROW_BYTES && !found.is_empty() {
                    break;
                }
                found.push(FailedItemView {
                    database: path.clone(),
                    version: row.version,
                    migration: view.looked.history.get(&row.version).map(|m| m.name.clone()),
                    step: row.step,
                    key: row.item,
                    code: row.code,
                    message: row.message,
                    row: row.row,
                    at_ms: row.at_ms,
                });
            }
        }
        Reply::FailedItems { items: found, total }
    }

    /// The tables of each database. One that cannot be read says why, and does not keep the others back.
    pub(super) fn tables(&self, database: &Selector) -> Reply {
        let views = match self.views_of(database) {
            Ok(views) => views,
            Err(refusal) => return refusal,
        };
        // All of them together take as long as a command line waits.
        let each = tables::LIMIT / u32::try_from(views.len().max(1)).unwrap_or(u32::MAX);
        let one = |(path, _): (PathBuf, View)| match tables::sizes(&path, each) {
            Ok((tables, file_bytes)) => TablesView { database: path, file_bytes, tables, error: None },
            Err(error) => {
                let why = gate::item(error.code(), Severity::Error, error.to_string(), error.remedy());
                TablesView { database: path, file_bytes: 0, tables: Vec::new(), error: Some(why) }
            }
        };
        Reply::Tables { databases: views.into_iter().map(one).collect() }
    }

    /// The databases that are meant and that could be looked at.
    pub(super) fn views_of(&self, database: &Selector) -> Result<Vec<(PathBuf, View)>, Reply> {
        let chosen = self.select(database)?;
        let views = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(chosen.into_iter().filter_map(|d| views.get(&d.path).map(|view| (d.path, view.clone()))).collect())
    }
}

fn refused(path: &std::path::Path, error: &ApplyError) -> Reply {
    Reply::Refused { message: format!("{}: {error}", path.display()), remedy: error.remedy() }
}
