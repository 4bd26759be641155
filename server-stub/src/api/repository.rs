//! `GET /repository/{app}/…`: the published bytes, as they were published.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::Response,
};
use whimbrel_shared::ids::{AppName, Digest};

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
    let Some((digest, body)) = state.store.target(app.clone(), path.clone()).await? else {
        let path = path.chars().take(300).collect();
        return Err(ApiError::NoTarget { app, path });
    };
    let mut response = answer::bytes_if_changed(&headers, digest, body);
    // A published target never changes. Private: a shared cache would serve it without asking who asks.
    let forever = HeaderValue::from_static("private, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, forever);
    Ok(response)
}
