//! Who asks: a device by its token, an operator by an API key.

use std::sync::Arc;

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, header, request::Parts},
};
use whimbrel_shared::ids::{AppName, Digest};

use super::App;
use crate::{
    problem::ApiError,
    secrets::{Kind, Scope},
    store::{Device, Key, Refusal},
};

/// Longest secret that is looked at.
const LONGEST: usize = 256;

/// The digest of a device token that was sent and not looked up yet.
pub(super) struct DeviceToken {
    pub(super) digest: Digest,
    kind: Option<Kind>,
}

impl DeviceToken {
    /// The error for a token that nobody has.
    pub(super) fn unknown(&self) -> ApiError {
        ApiError::UnknownDeviceToken(self.kind.filter(|k| *k != Kind::Device))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for DeviceToken {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let token = bearer(&parts.headers).ok_or(ApiError::NoDeviceToken)?;
        Ok(Self { digest: Digest::of(token.as_bytes()), kind: Kind::of(token) })
    }
}

impl FromRequestParts<Arc<App>> for Device {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, app: &Arc<App>) -> Result<Self, ApiError> {
        let token = DeviceToken::from_request_parts(parts, app).await?;
        let device = app.store.device(token.digest).await?;
        let device = device.ok_or_else(|| token.unknown())?;
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
        key.ok_or_else(|| ApiError::UnknownApiKey(Kind::of(text).filter(|k| *k != Kind::ApiKey)))
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
