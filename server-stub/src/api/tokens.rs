//! `POST /api/token`: a device takes another token. `GET /api/devices` and `POST /api/devices/{id}/revoke`: operators see how
//! old those are, and end them.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use serde::Deserialize;
use tracing::info;
use whimbrel_shared::{
    ids::DeviceId,
    protocol::token::{TokenRequest, TokenResponse},
};

use super::{
    App,
    answer::{self, Asked, InPath},
    auth::DeviceToken,
    operators,
};
use crate::{
    problem::ApiError,
    secrets::Scope,
    store::{DevicesPage, Key, Rotation},
};

/// How long the old token counts beside the new one: for requests under way, and for a device that was restored from last
/// night's backup. Not longer, since it is of use to whoever stole it too.
const GRACE_MS: i64 = 24 * 3_600_000;
/// A digest in JSON.
const MAX_TOKEN_BYTES: usize = 1024;

#[derive(Deserialize)]
pub(super) struct Devices {
    after: Option<DeviceId>,
    limit: Option<u32>,
}

pub(super) async fn rotate(State(app): State<Arc<App>>, token: DeviceToken, body: Body) -> Result<Response, ApiError> {
    let request: TokenRequest = answer::json(body, MAX_TOKEN_BYTES, "token").await?;
    let rotation = Rotation { token: token.digest, next: request.next, now_ms: app.now_ms(), grace_ms: GRACE_MS };
    let rotated = app.store.rotate_token(rotation).await;
    let device = token.known(&app, rotated)?;
    info!("device {device} has another token");
    answer::answer(&TokenResponse { grace_s: (GRACE_MS / 1000).unsigned_abs() })
}

pub(super) async fn devices(State(app): State<Arc<App>>, key: Key, Asked(asked): Asked<Devices>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let page = DevicesPage { after: asked.after, limit: operators::limit(asked.limit)? };
    answer::answer(&app.store.devices(page).await?)
}

pub(super) async fn revoke(State(app): State<Arc<App>>, key: Key, InPath(id): InPath<String>) -> Result<Response, ApiError> {
    key.may(Scope::Operate)?;
    let id: DeviceId = answer::id(&id)?;
    app.store.revoke_device(id, key.name, app.now_ms()).await?;
    info!("device {id} is revoked");
    answer::answer(&serde_json::Map::new())
}
