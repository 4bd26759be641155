//! `POST /api/migrations`: a publisher's links, all of them or none.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use tracing::info;
use whimbrel_shared::{
    migration::Targets,
    protocol::publish::{MAX_PUBLISH_BYTES, PublishRequest, PublishResponse},
};

use super::{App, answer};
use crate::{
    decide::publish::{self, Accepted},
    problem::ApiError,
    secrets::Scope,
    store::{Key, Publication, StoreError},
};

pub(super) async fn publish(State(app): State<Arc<App>>, key: Key, body: Body) -> Result<Response, ApiError> {
    // Before the body: only a publisher may make the server hold 64 MiB.
    key.may(Scope::Publish)?;
    let body = answer::read(body, MAX_PUBLISH_BYTES).await?;
    let request: PublishRequest = off_thread(move || answer::from_json(&body, "publish")).await?;
    let name = request.app.clone();
    let current = match app.store.targets(name.clone()).await? {
        Some(bytes) => serde_json::from_slice::<Targets>(&bytes).map_err(|e| StoreError::Damaged(format!("targets of {name}: {e}")))?,
        None => publish::nothing_published(&name),
    };
    let decided_on = current.version;
    let accepted = off_thread(move || Ok(publish::decide(&current, request.links)?)).await?;
    let Accepted { targets, latest, new, unchanged } = accepted;
    let answer =
        PublishResponse { published: new.iter().map(|l| l.target.custom.name.clone()).collect(), unchanged, targets_version: targets.version };
    if !new.is_empty() {
        let publication = Publication { decided_on, targets, latest, links: new, by: key.name.clone(), now_ms: app.now_ms() };
        app.store.publish(publication).await?;
        info!("{} published to {name}: {:?}", key.name, answer.published);
    }
    answer::answer(&answer)
}

/// Parsing and hashing tens of megabytes is no work for an async thread.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))?
}
