//! `GET /repository/{app}/…`: the published bytes, as they were published.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use whimbrel_shared::{
    ids::{AppName, Digest},
    tuf::{Role, targets::unhashed},
};

use super::{
    App,
    answer::{self, InPath},
    auth::Reader,
};
use crate::{problem::ApiError, store::Refusal};

pub(super) async fn targets(
    State(state): State<Arc<App>>,
    reader: Reader,
    InPath(app): InPath<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app: AppName = answer::id(&app)?;
    reader.may_read(&app)?;
    match state.store.targets(app.clone()).await? {
        Some(bytes) => Ok(answer::bytes_if_changed(&headers, Digest::of(&bytes), bytes)),
        None => Err(Refusal::NoApp(app).into()),
    }
}

pub(super) async fn target(
    State(state): State<Arc<App>>,
    reader: Reader,
    InPath((app, path)): InPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app: AppName = answer::id(&app)?;
    reader.may_read(&app)?;
    // As it is called, or with its digest before that, as TUF asks for it.
    let mut found = state.store.target(app.clone(), path.clone()).await?;
    if let Some((wanted, plain)) = unhashed(&path).filter(|_| found.is_none()) {
        found = state.store.target(app.clone(), plain.to_owned()).await?.filter(|(digest, _)| *digest == wanted);
    }
    match found {
        Some((digest, body)) => Ok(forever(answer::bytes_if_changed(&headers, digest, body))),
        None => Err(ApiError::NoTarget { app, path: path.chars().take(300).collect() }),
    }
}

/// Signed metadata: `N.root.json`, `N.targets.json`, `N.snapshot.json`, `timestamp.json`.
pub(super) async fn metadata(
    State(state): State<Arc<App>>,
    reader: Reader,
    InPath((app, file)): InPath<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let app: AppName = answer::id(&app)?;
    reader.may_read(&app)?;
    let asked = match file.as_str() {
        "timestamp.json" => Some((Role::Timestamp, None)),
        versioned => Role::of_file(versioned).map(|(role, version)| (role, Some(version))),
    };
    let found = match asked {
        Some((role, version)) => state.store.metadata(app.clone(), role, version).await?,
        None => None,
    };
    let Some(kept) = found else {
        return Err(ApiError::NoMetadata { app, file: file.chars().take(300).collect() });
    };
    let response = answer::bytes_if_changed(&headers, Digest::of(&kept.bytes), kept.bytes);
    // The timestamp alone changes under its name.
    Ok(if kept.role == Role::Timestamp { response } else { forever(response) })
}

/// What never changes under its name. Private: a shared cache would serve it without asking who asks.
fn forever(mut response: Response) -> Response {
    let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, forever);
    response
}
