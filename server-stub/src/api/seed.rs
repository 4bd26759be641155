//! `GET /api/migrations/pending` and `POST /api/migrations/status`: the seed's two endpoints, per client, and our batches.

use std::sync::Arc;

use axum::{body::Body, extract::State, http::HeaderMap, response::Response};
use serde::Deserialize;
use serde_json::Value;
use whimbrel_shared::{
    ids::{ClientId, EventId},
    migration::MAX_CHAIN,
    protocol::{
        MAX_JSON_BYTES,
        report::{MAX_REPORTS, SeedStatus, StatusResponse},
    },
    status::Event,
};

use super::{
    App,
    answer::{self, Asked},
    bind::{Bound, bind},
};
use crate::{
    problem::ApiError,
    secrets::dice,
    store::{ClientRef, Device},
};

/// Longest text of a failure, in bytes.
const MAX_MESSAGE: usize = 64 * 1024;

#[derive(Deserialize)]
pub(super) struct Which {
    client_id: Option<ClientId>,
}

pub(super) async fn pending(
    State(app): State<Arc<App>>,
    device: Device,
    Asked(which): Asked<Which>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let client = bound(&app, &device, which.client_id).await?;
    let pending = app.store.pending(client.client_id).await?;
    answer::answer_if_changed(&headers, &pending)
}

pub(super) async fn status(State(app): State<Arc<App>>, device: Device, Asked(which): Asked<Which>, body: Body) -> Result<Response, ApiError> {
    // By hand and not as one untagged value: that would answer every mistake with "did not match any variant".
    let body: Value = answer::json(body, MAX_JSON_BYTES, "status").await?;
    let acknowledged = match body.get("reports") {
        Some(reports) => {
            let reports = batch(reports)?;
            app.store.report(device.device_id, reports, app.now_ms()).await?
        }
        None => {
            let flag = flag(body)?;
            let client = bound(&app, &device, which.client_id).await?;
            let id = EventId::from_dice(dice());
            let stored = app.store.report_flag(client, flag, id, app.now_ms()).await?;
            Vec::from_iter(stored)
        }
    };
    answer::answer(&StatusResponse { success: true, acknowledged })
}

/// The database that a request speaks for; it is made for a device that has none.
async fn bound(app: &App, device: &Device, wanted: Option<ClientId>) -> Result<ClientRef, ApiError> {
    let clients = app.store.clients_of(device.device_id).await?;
    let apps: Vec<_> = device.apps.iter().cloned().collect();
    match bind(&clients, &apps, wanted)? {
        Bound::To(client) => Ok(client),
        Bound::New(name) => {
            let fresh = ClientRef { client_id: ClientId::from_dice(dice()), app: name };
            Ok(app.store.add_client(device.device_id, fresh).await?)
        }
    }
}

fn batch(reports: &Value) -> Result<Vec<Event>, ApiError> {
    let reports = reports.as_array().ok_or_else(|| ApiError::BadInput("`reports` is not a list".to_owned()))?;
    if reports.len() > MAX_REPORTS {
        return Err(ApiError::BadInput(format!("the batch has {} reports; at most {MAX_REPORTS} are taken at once", reports.len())));
    }
    (1..)
        .zip(reports)
        .map(|(nth, report)| {
            let event = Event::deserialize(report).map_err(|e| ApiError::BadInput(format!("report {nth}: {e}")))?;
            let message = event.failure.as_ref().map_or(0, |f| f.message.len());
            if event.version as usize > MAX_CHAIN || message > MAX_MESSAGE {
                return Err(ApiError::BadInput(format!(
                    "report {nth}: version {} (at most {MAX_CHAIN}), failure of {message} bytes (at most {MAX_MESSAGE})",
                    event.version
                )));
            }
            Ok(event)
        })
        .collect()
}

fn flag(body: Value) -> Result<SeedStatus, ApiError> {
    if body.get("migrationName").is_none() {
        return Err(ApiError::BadInput("migrationName is required (or `reports`, a list)".to_owned()));
    }
    SeedStatus::deserialize(body).map_err(|e| ApiError::BadInput(e.to_string()))
}
