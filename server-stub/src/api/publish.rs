//! `POST /api/migrations`: a publisher's links, all of them or none.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use tracing::info;
use whimbrel_shared::{
    ids::AppName,
    migration::Targets,
    protocol::publish::{MAX_PUBLISH_BYTES, PublishRequest, PublishResponse},
    tuf::Envelope,
};

use super::{App, answer, signed::stored_root};
use crate::{
    decide::{
        publish::{self, Accepted},
        signed::{self, SignedError},
    },
    problem::ApiError,
    secrets::Scope,
    store::{
        Key, Publication, StoreError,
        signed::{Kept, Repository, Signing},
    },
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
    let repository = app.store.repository(name.clone()).await?;
    let decided_on = current.version;
    let accepted = off_thread(move || Ok(publish::decide(&current, request.links)?)).await?;
    let Accepted { mut targets, latest, new, unchanged } = accepted;
    let known = decided_on.max(repository.as_ref().and_then(|r| r.targets.as_ref()).map_or(0, |t| t.version));
    let signing = match (repository, request.signed) {
        (None, None) => None,
        (None, Some(_)) => return Err(SignedError::NoRoot(name).into()),
        // What is there already needs no second signature.
        (Some(_), None) if new.is_empty() => None,
        (Some(_), None) => return Err(SignedError::Unsigned(name).into()),
        (Some(repository), Some(envelope)) => {
            let (signing, version) = sign(&app, &name, &repository, &envelope, known, &targets, latest)?;
            targets.version = version;
            Some(signing)
        }
    };
    let answer =
        PublishResponse { published: new.iter().map(|l| l.target.custom.name.clone()).collect(), unchanged, targets_version: targets.version };
    if !new.is_empty() || signing.is_some() {
        let publication = Publication { decided_on, targets, latest, links: new, signing, by: key.name.clone(), now_ms: app.now_ms() };
        app.store.publish(publication).await?;
        info!("{} published to {name}: {:?}", key.name, answer.published);
    }
    answer::answer(&answer)
}

/// The documents that go with signed targets, and the version of those.
fn sign(
    app: &App,
    name: &AppName,
    repository: &Repository,
    offered: &Envelope,
    known: u64,
    decided: &Targets,
    latest: u32,
) -> Result<(Signing, u64), ApiError> {
    let root = stored_root(repository)?;
    let now_ms = app.now_ms();
    let (envelope, document) = signed::check_targets(&root, offered, known, decided, latest, now_ms)?;
    let targets = Kept::new(&document, envelope.to_bytes());
    let fresh = signed::fresh(&root, &targets, Some(repository), app.online()?, now_ms)?;
    let files = std::iter::once(targets).chain(fresh).collect();
    // The publication is the deed that the audit names.
    Ok((Signing { app: name.clone(), decided_on: repository.mark(), files, by: None, now_ms }, document.version))
}

/// Parsing and hashing tens of megabytes is no work for an async thread.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Result<T, ApiError> {
    tokio::task::spawn_blocking(work).await.map_err(|e| StoreError::Damaged(e.to_string()))?
}
