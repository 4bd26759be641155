//! Who asks: a device by its token, an operator by an API key.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{HeaderMap, header, request::Parts},
};
use whimbrel_shared::ids::{AppName, Digest};

use super::App;
use crate::{
    problem::ApiError,
    secrets::{Kind, Scope},
    store::{Device, Key, Refusal, StoreError},
};

/// Longest secret that is looked at.
const LONGEST: usize = 256;

/// The digest of a device token that was sent and not looked up yet.
pub(super) struct DeviceToken {
    pub(super) digest: Digest,
    kind: Option<Kind>,
    peer: Option<IpAddr>,
}

impl DeviceToken {
    /// What the store found for it. Who sends too many that nobody has is told to wait; that is after the store was asked,
    /// since devices with good tokens may stand behind the same address.
    pub(super) fn known<T>(&self, app: &App, found: Result<Option<T>, StoreError>) -> Result<T, ApiError> {
        match found {
            Ok(Some(found)) => Ok(found),
            Ok(None) => Err(failed(app, self.peer, ApiError::UnknownDeviceToken(self.kind.filter(|k| *k != Kind::Device)))),
            Err(error @ StoreError::Refused(Refusal::DeviceRevoked)) => Err(failed(app, self.peer, error.into())),
            Err(error) => Err(error.into()),
        }
    }
}

/// Counts a secret that does not count; answers with `error`, or with "wait" when there were too many from that address.
fn failed(app: &App, peer: Option<IpAddr>, error: ApiError) -> ApiError {
    let now_ms = app.now_ms();
    let Some(peer) = peer else { return error };
    match app.failed_secrets.wait_s(peer, now_ms) {
        Some(wait_s) => ApiError::TooManyFailures { wait_s },
        None => {
            app.failed_secrets.note(peer, now_ms);
            error
        }
    }
}

/// Where a request comes from; none where no door is in between.
fn peer(parts: &Parts) -> Option<IpAddr> {
    parts.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip())
}

impl<S: Send + Sync> FromRequestParts<S> for DeviceToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers).ok_or(ApiError::NoDeviceToken)?;
        Ok(Self { digest: Digest::of(token.as_bytes()), kind: Kind::of(token), peer: peer(parts) })
    }
}

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let token = DeviceToken::from_request_parts(parts, app).await?;
        let found = app.store.device(token.digest, app.now_ms()).await;
        let device = token.known(app, found)?;
        app.seen.note(device.device_id, app.now_ms());
        Ok(device)
    }
}

impl Device {
    /// Refuses what is about an app that it is not enrolled for.
    pub(super) fn may_use(&self, app: &AppName) -> Result<(), ApiError> {
        match self.apps.contains(app) {
            true => Ok(()),
            false => Err(Refusal::NotEnrolled(app.clone()).into()),
        }
    }
}

impl FromRequestParts<Arc<App>> for Key {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let text = api_key(&parts.headers).ok_or(ApiError::NoApiKey)?;
        let key = app.store.key(Digest::of(text.as_bytes())).await?;
        key.ok_or_else(|| failed(app, peer(parts), ApiError::UnknownApiKey(Kind::of(text).filter(|k| *k != Kind::ApiKey))))
    }
}

impl Key {
    /// Refuses what this key may not do.
    pub(super) fn may(&self, needs: Scope) -> Result<(), ApiError> {
        match self.scope.allows(needs) {
            true => Ok(()),
            false => Err(ApiError::WrongScope { name: self.name.clone(), has: self.scope, needs }),
        }
    }
}

/// Someone who may read a repository: a device of the app, or any key.
pub(super) enum Reader {
    Device(Device),
    Operator(Key),
}

impl FromRequestParts<Arc<App>> for Reader {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        if api_key(&parts.headers).is_some() {
            Ok(Self::Operator(Key::from_request_parts(parts, app).await?))
        } else {
            Ok(Self::Device(Device::from_request_parts(parts, app).await?))
        }
    }
}

impl Reader {
    /// Refuses a repository that is none of the reader's business.
    pub(super) fn may_read(&self, app: &AppName) -> Result<(), ApiError> {
        match self {
            Self::Device(device) => device.may_use(app),
            Self::Operator(key) => key.may(Scope::Read),
        }
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    let token = token.trim();
    let fits = !token.is_empty() && token.len() <= LONGEST;
    (scheme.eq_ignore_ascii_case("bearer") && fits).then_some(token)
}

fn api_key(headers: &HeaderMap) -> Option<&str> {
    let key = headers.get("x-api-key")?.to_str().ok()?.trim();
    (!key.is_empty() && key.len() <= LONGEST).then_some(key)
}
