//! Brings a rehearsed chain to the server. Nothing is sent that the server has, and nothing that contradicts it.

use std::collections::{BTreeMap, BTreeSet};

use whimbrel_shared::{
    ids::{AppName, MigrationName},
    migration::Targets,
    protocol::publish::{MAX_PUBLISH_BYTES, PublishLink, PublishRequest, TrustResponse},
    remedy::{Remedy, here},
    trust as chain_trust,
    tuf::Envelope,
};

use super::{
    compare::{CompareError, Found, bodies_needed, compare, links, recorded_ids},
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
    /// More than a server takes in one request, and signed as a whole.
    #[error("what is new has {size_bytes} bytes, and a server takes {MAX_PUBLISH_BYTES} at once; nothing was published")]
    TooMuchAtOnce {
        /// Its size.
        size_bytes: usize,
    },
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
            Self::TooMuchAtOnce { .. } => here("publish the first part of the directory, then the whole of it"),
        }
    }
}

/// What the server has of an app.
#[derive(Debug)]
pub struct Standing {
    /// Its targets; none before the first publish.
    pub targets: Option<Targets>,
    /// What of the chain it has, and what was changed in it on purpose.
    pub found: Found,
}

impl Standing {
    /// Why no rows can be exchanged in this chain, where that is so whatever is published now.
    pub fn without_ids(&self) -> Option<String> {
        let ids = recorded_ids(self.targets.as_ref(), self.found.published).ok()?;
        ids.ledger().err().map(|why| why.to_string())
    }
}

/// Asks the server what it has, and compares. Sends nothing. `revise`: the migrations whose text may have been changed.
pub async fn standing(server: &Server, app: &AppName, chain: &Chain, revise: &BTreeSet<MigrationName>) -> Result<Standing, UploadError> {
    let Some((targets, _)) = server.targets(app).await? else {
        return match revise.first() {
            Some(name) => Err(CompareError::NotPublished { name: name.clone() }.into()),
            None => Ok(Standing { targets: None, found: Found::default() }),
        };
    };
    chain_trust::check_chain(&targets).map_err(CompareError::from)?;
    let mut bodies = BTreeMap::new();
    for entry in bodies_needed(chain, &targets) {
        let bytes = server.target(app, entry).await?;
        let verified = chain_trust::verify(entry, &bytes).map_err(CompareError::from)?;
        bodies.insert(entry.path(), verified.migration().clone());
    }
    let found = compare(chain, &targets, &bodies, revise)?;
    Ok(Standing { targets: Some(targets), found })
}

/// What the server has not got, as links at the end of its chain.
pub fn new_links(app: &AppName, chain: &Chain, rehearsal: &Rehearsal, standing: &Standing) -> Result<Vec<PublishLink>, UploadError> {
    Ok(links(chain, rehearsal, app, &standing.found, standing.targets.as_ref())?)
}

/// The whole directory as links, as if nothing were published; empty where that cannot be, such as after a revision.
pub fn all_links(app: &AppName, chain: &Chain, rehearsal: &Rehearsal) -> Vec<PublishLink> {
    links(chain, rehearsal, app, &Found::default(), None).unwrap_or_default()
}

/// Sends links, unsigned. Gives the names of what is new there now, revisions among them.
pub async fn upload(server: &Server, app: &AppName, links: Vec<PublishLink>) -> Result<Vec<MigrationName>, UploadError> {
    let mut published = Vec::new();
    for part in parts(links) {
        let response = server.publish(&PublishRequest { app: app.clone(), links: part, signed: None }).await?;
        published.extend(response.published);
    }
    Ok(published)
}

/// Sends links and the targets metadata that was signed with them: one request, since what is signed is the whole.
pub async fn upload_signed(server: &Server, app: &AppName, links: Vec<PublishLink>, signed: Envelope) -> Result<Vec<MigrationName>, UploadError> {
    let request = PublishRequest { app: app.clone(), links, signed: Some(signed) };
    let size_bytes = serde_json::to_vec(&request).map_or(usize::MAX, |bytes| bytes.len());
    if size_bytes > MAX_PUBLISH_BYTES {
        return Err(UploadError::TooMuchAtOnce { size_bytes });
    }
    Ok(server.publish(&request).await?.published)
}

/// What the server says of the app's root and of its own keys; none of a server that signs nothing.
pub async fn trust(server: &Server, app: &AppName) -> Result<Option<TrustResponse>, UploadError> {
    match server.trust(app).await {
        Ok(trust) => Ok(Some(trust)),
        // One of before signatures, or one without keys.
        Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(None),
        Err(error) => Err(error.into()),
    }
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
