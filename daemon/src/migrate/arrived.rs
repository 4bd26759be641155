//! Files that were copied here from another device. Such a file has its original's client id, and may be the original
//! itself, moved: nobody here can tell. So it is only remembered that it came, until the server says which (DESIGN 7): it
//! takes the id for this device's, and all is well; or it says that another device has it, and the file gets one of its
//! own.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use whimbrel_shared::ids::ClientId;

use super::{
    connection::{Managed, Missing},
    error::ApplyError,
    files,
    work::{Shared, Site},
};
use crate::store::{StoreError, device::KnownDatabase, managed, settings};

/// How long a look waits for the application, as in `work`.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(2);

/// What is remembered of a file that came here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Arrival {
    /// Where it lies.
    path: PathBuf,
    /// Its last event then: those up to here are its original's.
    seq: i64,
    /// The client id that it is to get, once that is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    new: Option<ClientId>,
}

/// What is remembered of the file at `site` under the client id that it says.
pub(super) fn arrival(shared: &Shared, site: &Site, client: ClientId) -> Result<Option<Arrival>, StoreError> {
    let kept = shared.store().setting(&settings::arrived(client))?;
    Ok(kept.and_then(|kept| serde_json::from_str::<Arrival>(&kept).ok()).filter(|arrival| arrival.path == site.path))
}

/// Remembers that a file came here: it has a client id that nobody here knows, and says that it was last written at
/// another place.
pub(super) fn remember(shared: &Shared, site: &Site, file: &Managed, found: &managed::FileIdentity) -> Result<(), ApplyError> {
    let seq = managed::last_event(&file.connection)?.map_or(0, |(seq, _)| seq);
    let arrival = Arrival { path: site.path.clone(), seq, new: None };
    let kept = serde_json::to_string(&arrival).expect("an arrival has text keys");
    Ok(shared.store().set_setting(&settings::arrived(found.client_id), Some(&kept))?)
}

/// The server takes these client ids for this device's: the files are no copies.
pub fn accepted(shared: &Shared, clients: impl Iterator<Item = ClientId>) -> Result<(), StoreError> {
    shared.store().atomically(|store| clients.map(settings::arrived).try_for_each(|key| store.set_setting(&key, None)))
}

/// Decides that the file at `site` is a copy: the server says that another device has its client id. Its next look
/// writes the new one into it. Answers the new one; none, and nothing is changed, where the file did not come from
/// elsewhere: then the server is wrong, or this device's own store was lost, and a person has to look.
pub fn part(shared: &Shared, site: &Site, client: ClientId) -> Result<Option<ClientId>, ApplyError> {
    let Some(arrival) = arrival(shared, site, client)? else { return Ok(None) };
    if arrival.new.is_some() {
        return Ok(arrival.new);
    }
    let file = Managed::open(&site.path, Missing::Refuse, PATIENCE, shared.halt.clone())?;
    let found = managed::identity(&file.connection)?;
    if found.client_id != client {
        return Ok(None);
    }
    let place = files::place(&site.path).map_err(|source| ApplyError::Lock { path: site.path.clone(), source })?;
    let new = ClientId::from_dice(shared.ambient.dice());
    let identity = files::new_identity(new, &found.app, place);
    let since: Vec<_> =
        managed::events_after(&file.connection, &found, arrival.seq, u32::MAX)?.into_iter().map(|(_, event)| event.event_id).collect();
    let copied_id = managed::event_at(&file.connection, arrival.seq)?;
    let known = KnownDatabase { identity, path: site.path.clone(), copied_seq: arrival.seq, copied_id };
    let kept = serde_json::to_string(&Arrival { new: Some(new), ..arrival }).expect("an arrival has text keys");
    let note = format!("{client} {}", shared.ambient.now_ms());
    shared.store().atomically(|store| {
        store.part_database(client, &known, &since)?;
        store.set_setting(&settings::parted(new), Some(&note))?;
        store.set_setting(&settings::arrived(client), Some(&kept))
    })?;
    tracing::warn!(database.path = %site.path.display(), client_id = %new, "the file was copied from another device, which has the client id {client}; it gets one of its own");
    Ok(Some(new))
}

/// The client id that was decided for a file that came with `client`.
pub(super) fn decided(shared: &Shared, site: &Site, client: ClientId) -> Result<Option<ClientId>, StoreError> {
    Ok(arrival(shared, site, client)?.and_then(|arrival| arrival.new))
}
