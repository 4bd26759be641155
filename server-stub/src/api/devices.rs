//! `POST /api/enroll`, `GET /api/poll`, `POST /api/state`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    body::Body,
    extract::{ConnectInfo, State},
    http::HeaderMap,
    response::Response,
};
use tracing::info;
use whimbrel_shared::{
    PROTOCOL,
    ids::{DeviceId, Digest},
    migration::MAX_CHAIN,
    protocol::{
        enroll::{EnrollRequest, EnrollResponse},
        poll::{Plan, PollResponse},
        state::{MAX_DATABASES, StateRequest},
    },
    tuf::plan::unsigned,
};

use super::{App, answer, auth::DeviceToken};
use crate::{
    problem::ApiError,
    secrets::{Kind, Secret, dice},
    store::{Device, Enrolment, StoreError},
};

/// Anyone may send one, so it is small.
const MAX_ENROLL_BYTES: usize = 16 * 1024;
/// Room for [`MAX_DATABASES`] with their health.
const MAX_STATE_BYTES: usize = 16 * 1024 * 1024;
/// Longest name, version or file name, in bytes.
const MAX_TEXT: usize = 255;
/// Most labels of a device, and most health items of a database.
const MAX_ITEMS: usize = 64;

pub(super) async fn enroll(State(app): State<Arc<App>>, ConnectInfo(peer): ConnectInfo<SocketAddr>, body: Body) -> Result<Response, ApiError> {
    let now_ms = app.now_ms();
    if let Some(wait_s) = app.failed_enrolments.wait_s(peer.ip(), now_ms) {
        return Err(ApiError::TooManyFailures { wait_s });
    }
    let request: EnrollRequest = answer::json(body, MAX_ENROLL_BYTES, "enroll").await?;
    short("name", &request.name)?;
    short("daemon_version", &request.daemon_version)?;
    let fresh = Secret::new(Kind::Device);
    let known = match (request.device_id, &request.device_token) {
        (Some(id), Some(token)) => Some((id, Digest::of(token.as_bytes()))),
        (None, None) => None,
        (Some(_), None) | (None, Some(_)) => {
            return Err(ApiError::BadInput("device_id and device_token go together: send both or neither".to_owned()));
        }
    };
    let enrolment = Enrolment {
        id: request.enrolment_id.map(|id| (id, request.content())),
        token: Digest::of(request.token.as_bytes()),
        known,
        fresh: (DeviceId::from_dice(dice()), fresh.digest()),
        name: request.name,
        daemon_version: request.daemon_version,
        now_ms,
    };
    let enrolled = app.store.enroll(enrolment).await.inspect_err(|error| {
        if matches!(error, StoreError::Refused(_)) {
            app.failed_enrolments.note(peer.ip(), now_ms);
        }
    })?;
    info!("device {} enrolled for {}", enrolled.device_id, enrolled.app);
    let device_token = match request.device_token {
        Some(token) if !enrolled.fresh => token,
        Some(_) | None => fresh.reveal().to_owned(),
    };
    answer::answer(&EnrollResponse { device_id: enrolled.device_id, device_token, app: enrolled.app, protocol: PROTOCOL })
}

pub(super) async fn poll(State(app): State<Arc<App>>, token: DeviceToken, headers: HeaderMap) -> Result<Response, ApiError> {
    let found = app.store.poll(token.digest, app.now_ms()).await;
    let (device, mut plans) = token.known(&app, found)?;
    app.seen.note(device, app.now_ms());
    let etag = answer::digest(&plans)?;
    // Most are told that nothing changed, and nothing is signed for them.
    match answer::knows(&headers, &etag) {
        true => Ok(answer::bytes_if_changed(&headers, etag, Vec::new())),
        false => {
            sign_plans(&app, &mut plans);
            Ok(answer::bytes_if_changed(&headers, etag, answer::encode(&plans)?))
        }
    }
}

/// Signs the plans of the apps that are signed.
fn sign_plans(app: &App, answer: &mut PollResponse) {
    let Some(online) = &app.online else { return };
    let signed = answer.plans.iter().filter(|plan| answer.repository.get(&plan.app).is_some_and(|head| head.signed.is_some()));
    let sign = |plan: &Plan| {
        let mut envelope = unsigned(plan);
        let signature = online.plan.sign(&envelope.payload());
        envelope.add(&online.plan.public(), signature);
        envelope
    };
    answer.signed_plans = signed.map(sign).collect();
}

pub(super) async fn state(State(app): State<Arc<App>>, device: Device, body: Body) -> Result<Response, ApiError> {
    let request: StateRequest = answer::json(body, MAX_STATE_BYTES, "state").await?;
    check_state(&request)?;
    app.store.save_state(device.device_id, request).await?;
    answer::answer(&serde_json::Map::new())
}

/// Refuses a state that is out of its limits.
fn check_state(state: &StateRequest) -> Result<(), ApiError> {
    short("daemon_version", &state.daemon_version)?;
    few("databases", state.databases.len(), MAX_DATABASES)?;
    few("labels", state.labels.len(), MAX_ITEMS)?;
    for (name, value) in &state.labels {
        short("labels", name)?;
        short("labels", value)?;
    }
    for database in &state.databases {
        short("file_name", &database.file_name)?;
        for text in [&database.app_version, &database.app_sqlite] {
            short("app_version and app_sqlite", text.as_deref().unwrap_or_default())?;
        }
        few("health", database.health.len(), MAX_ITEMS)?;
        few("version", database.version as usize, MAX_CHAIN)?;
    }
    Ok(())
}

fn short(what: &str, text: &str) -> Result<(), ApiError> {
    match text.len() <= MAX_TEXT {
        true => Ok(()),
        false => Err(ApiError::BadInput(format!("{what} has {} bytes; at most {MAX_TEXT} are kept", text.len()))),
    }
}

fn few(what: &str, count: usize, most: usize) -> Result<(), ApiError> {
    match count <= most {
        true => Ok(()),
        false => Err(ApiError::BadInput(format!("{what} is {count}; it is at most {most}"))),
    }
}
