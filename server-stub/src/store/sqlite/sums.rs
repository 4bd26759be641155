//! The sums of a space's rows, in SQLite: one walk over all of them, in one moment.

use std::collections::BTreeMap;

use rusqlite::Transaction;
use whimbrel_shared::{
    ids::DeviceId,
    protocol::sums::{SumsRequest, SumsResponse},
    sums::TableSums,
    value::Value,
};

use super::{
    natural, record,
    spaces::{self, Schemas, WriterBook},
};
use crate::store::{Refusal, StoreError};

pub(super) fn sums(tx: &Transaction<'_>, schemas: &Schemas, device: DeviceId, asked: &SumsRequest) -> Result<SumsResponse, StoreError> {
    let bound = spaces::bound(tx, device, asked.client_id)?;
    let bound = bound.ok_or_else(|| Refusal::SnapshotNeeded("the database has exchanged no rows yet".to_owned()))?;
    let (latest, own) = schemas.at(tx, &bound.app, asked.schema)?;
    let shown = own.shown(None, &latest);
    let mut tables: BTreeMap<u32, TableSums> = shown.tables.iter().map(|(id, shown)| (*id, TableSums::new(*id, &shown.columns))).collect();
    let mut writers = WriterBook::new(tx);
    let mut lifting = schemas.lifting(tx, &bound.app)?;
    let mut query = tx.prepare_cached("SELECT version, table_id, record FROM synced_row WHERE space_id = ?1 AND deleted_at_ms IS NULL")?;
    let mut rows = query.query([bound.space])?;
    while let Some(row) = rows.next()? {
        let Some(sums) = tables.get_mut(&row.get::<_, u32>(1)?) else { continue };
        let bytes = row.get_ref(2)?.as_blob().map_err(|e| StoreError::Damaged(e.to_string()))?;
        let mut found = record::decode(bytes, natural(row, 0)?, &mut writers)?;
        lifting.complete(row.get(1)?, &found.key, &mut found.state, found.level, asked.schema);
        // How a key is spelled is each file's own.
        let columns = own.key(row.get(1)?, &latest).unwrap_or_default();
        let key: Vec<Value> = found.key.iter().zip(columns).map(|(value, column)| value.canonical(column.1)).collect();
        sums.add(&key, found.state.cells().iter().map(|held| (held.column, &held.value)));
    }
    Ok(SumsResponse { series: bound.series, version: bound.seq, tables: tables.into_values().collect() })
}
