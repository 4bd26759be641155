//! Brings a rehearsed chain to the server. Nothing is sent that the server has, and nothing that contradicts it.

use std::collections::BTreeMap;

use whimbrel_shared::{
    ids::{AppName, MigrationName},
    migration::Targets,
    protocol::publish::{PublishLink, PublishRequest},
    remedy::{Remedy, here},
    trust,
};

use super::{
    compare::{CompareError, bodies_needed, compare, links},
    layout::Chain,
    rehearse::Rehearsal,
};
use crate::transport::{TransportError, server::Server};

/// Largest part of a chain that is sent at once: far enough below what the server reads for a JSON escape of every
/// second byte.
const MAX_REQUEST_BYTES: usize = 24 * 1024 * 1024;

/// Why a chain was not published. What was sent before it failed is published, and is a no-op the next time.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// The server, or the way to it.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The directory contradicts the server.
    #[error(transparent)]
    Compare(#[from] CompareError),
}

impl UploadError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::Transport(error) => match error.status() {
                Some(401 | 403) => here("set WHIMBREL_API_KEY to a key that may publish"),
                // Nobody tries a command again by itself.
                None if matches!(error, TransportError::Unreachable { .. } | TransportError::Stalled { .. }) => {
                    here("check --server and the network, and run the command again: what was sent already is not sent twice")
                }
                _ => error.remedy(),
            },
            Self::Compare(error) => error.remedy(),
        }
    }
}

/// What the server has of an app.
#[derive(Debug)]
pub struct Standing {
    /// Its targets; none before the first publish.
    pub targets: Option<Targets>,
    /// How many of the chain's migrations it has.
    pub published: usize,
}

/// Asks the server what it has, and compares. Sends nothing.
pub async fn standing(server: &Server, app: &AppName, chain: &Chain) -> Result<Standing, UploadError> {
    let Some((targets, _)) = server.targets(app).await? else {
        return Ok(Standing { targets: None, published: 0 });
    };
    trust::check_chain(&targets).map_err(CompareError::from)?;
    let mut bodies = BTreeMap::new();
    for entry in bodies_needed(chain, &targets) {
        let bytes = server.target(app, entry).await?;
        let verified = trust::verify(entry, &bytes).map_err(CompareError::from)?;
        bodies.insert(entry.path(), verified.migration().clone());
    }
    let published = compare(chain, &targets, &bodies)?;
    Ok(Standing { targets: Some(targets), published })
}

/// Sends what the server has not got. Gives the names that are new there now.
pub async fn upload(
    server: &Server,
    app: &AppName,
    chain: &Chain,
    rehearsal: &Rehearsal,
    standing: &Standing,
) -> Result<Vec<MigrationName>, UploadError> {
    let links = links(chain, rehearsal, app, standing.published, standing.targets.as_ref())?;
    let mut published = Vec::new();
    for part in parts(links) {
        let response = server.publish(&PublishRequest { app: app.clone(), links: part }).await?;
        published.extend(response.published);
    }
    Ok(published)
}

/// Links in order, in requests that the server reads. Each part is a chain's continuation by itself.
fn parts(links: Vec<PublishLink>) -> Vec<Vec<PublishLink>> {
    let mut parts: Vec<Vec<PublishLink>> = Vec::new();
    let mut room = 0usize;
    for link in links {
        let size = serde_json::to_vec(&link).map_or(link.body.len(), |bytes| bytes.len());
        match parts.last_mut() {
            Some(part) if size <= room => part.push(link),
            Some(_) | None => {
                parts.push(vec![link]);
                room = MAX_REQUEST_BYTES;
            }
        }
        room = room.saturating_sub(size);
    }
    parts
}
