//! The device's token is replaced before it is old: the new one is on the disk before the server hears of it, and the old one
//! goes when the server has answered. Whichever of the two counts after a crash, the device has it.

use whimbrel_shared::{
    ids::Digest,
    protocol::{
        problem::{DEVICE_REVOKED, TOKEN_REPLACED},
        state::Severity,
    },
    remedy::here,
};

use super::Core;
use crate::{
    migrate::gate::item,
    store::{StoreError, settings},
    transport::TransportError,
};

impl Core {
    /// Takes another token when this one is as old as the configuration lets it become, or when that was begun before.
    pub(super) async fn rotate_token(&mut self) -> Result<Result<(), TransportError>, StoreError> {
        let now_ms = self.shared.ambient.now_ms();
        let (next, since_ms) = {
            let store = self.shared.store();
            if self.server.seed || store.setting(settings::DEVICE_TOKEN)?.is_none() {
                return Ok(Ok(()));
            }
            let since = store.setting(settings::TOKEN_SINCE_MS)?.and_then(|t| t.parse::<i64>().ok());
            (store.setting(settings::NEXT_TOKEN)?, since)
        };
        // Not known, or from a clock that was ahead: it counts from now.
        let since_ms = match since_ms {
            Some(since_ms) if since_ms <= now_ms => since_ms,
            Some(_) | None => {
                self.shared.store().set_setting(settings::TOKEN_SINCE_MS, Some(&now_ms.to_string()))?;
                now_ms
            }
        };
        let longest_ms = i64::try_from(self.config.rotate_token.as_millis()).unwrap_or(i64::MAX);
        let next = match next {
            Some(next) => next,
            None if now_ms - since_ms < longest_ms => return Ok(Ok(())),
            None => {
                let fresh = format!("whd_{:032x}{:032x}", self.shared.ambient.dice(), self.shared.ambient.dice());
                self.shared.store().set_setting(settings::NEXT_TOKEN, Some(&fresh))?;
                fresh
            }
        };
        let Some(server) = self.connect()? else { return Ok(Ok(())) };
        match server.rotate(Digest::of(next.as_bytes())).await {
            Ok(_) => {
                self.shared.store().atomically(|store| {
                    store.set_setting(settings::DEVICE_TOKEN, Some(&next))?;
                    store.set_setting(settings::TOKEN_SINCE_MS, Some(&now_ms.to_string()))?;
                    store.set_setting(settings::NEXT_TOKEN, None)
                })?;
                tracing::info!("the device has another token");
                Ok(Ok(()))
            }
            Err(error) if is_kind(&error, TOKEN_REPLACED) => {
                self.shared.store().set_setting(settings::NEXT_TOKEN, None)?;
                self.server.alarms.push(item(
                    "token_replaced",
                    Severity::Error,
                    error.to_string(),
                    here("enrol this device again before its token ends, within a day: `whimbrel enroll URL`, with a new token from the operator"),
                ));
                Ok(Ok(()))
            }
            // A server that does not know this yet: it is asked again when the token would be old again.
            Err(error) if matches!(error.status(), Some(404 | 405)) => {
                self.shared.store().atomically(|store| {
                    store.set_setting(settings::TOKEN_SINCE_MS, Some(&now_ms.to_string()))?;
                    store.set_setting(settings::NEXT_TOKEN, None)
                })?;
                Ok(Ok(()))
            }
            Err(error) => Ok(Err(error)),
        }
    }

    /// Whether there is another token to try after a refusal: the server may have heard of the new one, and its answer was
    /// lost for longer than the old one counts. The two change places, so that neither is forgotten.
    pub(super) fn try_next_token(&mut self, refused: &TransportError) -> Result<bool, StoreError> {
        if refused.status() != Some(401) || is_kind(refused, DEVICE_REVOKED) {
            return Ok(false);
        }
        self.shared.store().atomically(|store| {
            let (token, next) = (store.setting(settings::DEVICE_TOKEN)?, store.setting(settings::NEXT_TOKEN)?);
            let Some(next) = next else { return Ok(false) };
            store.set_setting(settings::DEVICE_TOKEN, Some(&next))?;
            store.set_setting(settings::NEXT_TOKEN, token.as_deref())?;
            Ok(true)
        })
    }

    /// After the other token was tried: where it counts, the one before it is of no more use; else they change back.
    pub(super) fn keep_token(&mut self, exchange: &Result<(), TransportError>, refused: &TransportError) -> Result<(), StoreError> {
        match exchange {
            Ok(()) => self.shared.store().set_setting(settings::NEXT_TOKEN, None),
            Err(error) if error.status() == Some(401) => self.try_next_token(refused).map(|_| ()),
            // Not known yet. Both are there, and the next refusal changes them again.
            Err(_) => Ok(()),
        }
    }

    /// Shows that the operator ended this device's token: nothing but a person changes that.
    pub(super) fn note_revoked(&mut self, exchange: &Result<(), TransportError>) {
        if let Err(error) = exchange
            && is_kind(error, DEVICE_REVOKED)
        {
            self.server.alarms.push(item(
                "device_revoked",
                Severity::Error,
                "an operator revoked this device: the server takes nothing from it",
                error.remedy(),
            ));
        }
    }
}

fn is_kind(error: &TransportError, kind: &str) -> bool {
    matches!(error, TransportError::Refused { problem, .. } if problem.kind == kind)
}
