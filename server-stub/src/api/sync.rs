//! `POST /api/sync/push`, `GET /api/sync/pull`, `GET /api/sync/sums`, `GET /api/conflicts`, `PUT /api/clients/{id}/space`.

use std::{collections::HashSet, sync::Arc};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use serde::Deserialize;
use whimbrel_shared::{
    change::MAX_PAGE_ROWS,
    ids::{AppName, ClientId, SpaceName},
    packed,
    protocol::{
        MAX_JSON_BYTES,
        pull::PullRequest,
        push::{MAX_PUSH_JSON_BYTES, PushHead, PushRequest},
        sums::SumsRequest,
    },
};

use super::{
    App,
    answer::{self, Asked, InPath},
    operators,
};
use crate::{
    problem::ApiError,
    secrets::Scope,
    store::{
        Device, Key, StoreError,
        rows::{Binding, ConflictsPage, Push},
    },
};

/// Pushes that are read or written at once. Each may take tens of megabytes, and the store writes one after the other.
pub(crate) const PUSHES: usize = 8;
/// When a device that found all of them taken comes again.
const COME_AGAIN_S: i64 = 2;

pub(super) async fn push(State(app): State<Arc<App>>, device: Device, headers: HeaderMap, body: Body) -> Result<Response, ApiError> {
    let form = Form::of_body(&headers)?;
    let _turn = app.pushes.try_acquire().map_err(|_| ApiError::Busy { wait_s: COME_AGAIN_S })?;
    let bytes = answer::read(body, form.most_bytes()).await?;
    let (request, content) = busy(move || {
        let request = form.push(&bytes)?;
        let content = request.content();
        Ok((request, content))
    })
    .await?;
    let answer = app.store.push(Push { device: device.device_id, request, content, now_ms: app.now_ms() }).await?;
    answer::answer(&answer)
}

pub(super) async fn pull(
    State(app): State<Arc<App>>,
    device: Device,
    headers: HeaderMap,
    Asked(asked): Asked<PullRequest>,
) -> Result<Response, ApiError> {
    if asked.since_schema.is_some() != asked.until.is_some() {
        return Err(ApiError::BadInput("since_schema and until go together: send both or neither".to_owned()));
    }
    let form = Form::of_answer(&headers);
    let page = app.store.pull(device.device_id, asked, app.now_ms()).await?;
    match form {
        Form::Json => answer::answer(&page),
        Form::Packed => {
            let packed = busy(move || Ok(packed::pack_rows(&page.head, &page.rows))).await?;
            let mut response = packed.into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(packed::CONTENT_TYPE));
            Ok(response)
        }
    }
}

pub(super) async fn sums(State(app): State<Arc<App>>, device: Device, Asked(asked): Asked<SumsRequest>) -> Result<Response, ApiError> {
    answer::answer(&app.store.sums(device.device_id, asked).await?)
}

#[derive(Deserialize)]
pub(super) struct Conflicts {
    app: AppName,
    #[serde(default)]
    open: bool,
    before: Option<i64>,
    limit: Option<u32>,
}

pub(super) async fn conflicts(State(state): State<Arc<App>>, key: Key, Asked(asked): Asked<Conflicts>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let page = ConflictsPage { app: asked.app, open: asked.open, before: asked.before, limit: operators::limit(asked.limit)? };
    answer::answer(&state.store.conflicts(page).await?)
}

#[derive(Deserialize)]
struct SpaceRequest {
    space: SpaceName,
}

pub(super) async fn bind(State(state): State<Arc<App>>, key: Key, InPath(id): InPath<String>, body: Body) -> Result<Response, ApiError> {
    key.may(Scope::Operate)?;
    let client_id: ClientId = answer::id(&id)?;
    let request: SpaceRequest = answer::json(body, MAX_JSON_BYTES, "space").await?;
    state.store.bind_space(Binding { client_id, space: request.space, by: key.name, now_ms: state.now_ms() }).await?;
    answer::answer(&serde_json::Map::new())
}

/// The form of a page of rows.
#[derive(Clone, Copy)]
enum Form {
    Json,
    Packed,
}

impl Form {
    fn of_body(headers: &HeaderMap) -> Result<Self, ApiError> {
        match headers.get(header::CONTENT_TYPE).map(|v| v.to_str().unwrap_or("?").split(';').next().unwrap_or_default().trim()) {
            None | Some("application/json") => Ok(Self::Json),
            Some(packed::CONTENT_TYPE) => Ok(Self::Packed),
            Some(other) => Err(ApiError::UnknownForm(other.chars().take(80).collect())),
        }
    }

    /// The one that is named, and JSON for those who name none of ours.
    fn of_answer(headers: &HeaderMap) -> Self {
        let named = |v: &HeaderValue| {
            v.to_str().is_ok_and(|v| v.split(',').any(|one| one.split(';').next().unwrap_or_default().trim() == packed::CONTENT_TYPE))
        };
        if headers.get_all(header::ACCEPT).iter().any(named) { Self::Packed } else { Self::Json }
    }

    fn most_bytes(self) -> usize {
        match self {
            Self::Json => MAX_PUSH_JSON_BYTES,
            Self::Packed => packed::MAX_PACKED_BYTES,
        }
    }

    fn push(self, bytes: &Bytes) -> Result<PushRequest, ApiError> {
        let request = match self {
            Self::Json => answer::from_json(bytes, "push")?,
            Self::Packed => {
                let unpacked = packed::unpack_changes::<PushHead>(bytes);
                let (head, changes) = unpacked.map_err(|e| ApiError::BadBody { endpoint: "push", why: e.to_string() })?;
                PushRequest { head, changes }
            }
        };
        // Its answer would be one for both.
        let mut rows = HashSet::with_capacity(request.changes.len());
        if let Some(twice) = request.changes.iter().find(|change| !rows.insert((change.table, &change.key))) {
            return Err(ApiError::BadInput(format!("the push names the row {:?} of table {} twice: send it once", twice.key, twice.table)));
        }
        match request.changes.len() {
            0 => Err(ApiError::BadInput("a push has at least one change".to_owned())),
            1..=MAX_PAGE_ROWS => Ok(request),
            more => Err(ApiError::BadInput(format!("the push has {more} changes; at most {MAX_PAGE_ROWS} are read"))),
        }
    }
}

/// Runs what keeps a core busy where it holds up nobody else.
async fn busy<T: Send + 'static>(work: impl FnOnce() -> Result<T, ApiError> + Send + 'static) -> Result<T, ApiError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|e| ApiError::Store(StoreError::Damaged(e.to_string())))?
}
