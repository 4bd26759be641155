//! The endpoints, one file per concern, and what all of them share.

mod answer;
mod auth;
mod bind;
mod devices;
mod operators;
mod publish;
mod repository;
mod seed;
pub(crate) mod signed;
pub(crate) mod sync;
mod tokens;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    http::{Method, Uri},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use tracing::debug;

use crate::{limit::Failures, online::OnlineKeys, problem::ApiError, seen::Seen, store::Store};

/// Every endpoint, for those who ask for one that is not there.
pub(crate) const ENDPOINTS: [&str; 26] = [
    "GET /healthz",
    "GET /readyz",
    "POST /api/enroll",
    "GET /api/poll",
    "POST /api/state",
    "POST /api/token",
    "GET /api/devices",
    "POST /api/devices/{id}/revoke",
    "GET /api/migrations/pending",
    "POST /api/migrations/status",
    "GET /repository/{app}/targets.json",
    "GET /repository/{app}/targets/{path}",
    "GET /repository/{app}/{N.root.json, N.targets.json, N.snapshot.json, timestamp.json}",
    "POST /api/roots",
    "GET /api/trust/{app}",
    "GET and POST /api/migrations",
    "GET /api/clients",
    "GET /api/clients/{id}",
    "GET /api/clients/{id}/history",
    "PUT /api/clients/{id}/space",
    "POST /api/sync/push",
    "GET /api/sync/pull",
    "GET /api/sync/sums",
    "GET /api/conflicts",
    "GET and PUT /api/plan",
    "GET /api/audit",
];

/// Longest a request may take from its headers to its answer.
const REQUEST: Duration = Duration::from_secs(30);
/// The same for a publish, whose body may be large and its line slow.
const PUBLISH: Duration = Duration::from_secs(300);

/// What every endpoint works with.
pub(crate) struct App {
    pub(crate) store: Box<dyn Store>,
    pub(crate) seen: Seen,
    pub(crate) failed_enrolments: Failures,
    /// Secrets that nobody has.
    pub(crate) failed_secrets: Failures,
    /// Turns for pushes: who gets none comes again.
    pub(crate) pushes: tokio::sync::Semaphore,
    pub(crate) clock: Clock,
    /// What it signs with; none where nothing is signed.
    pub(crate) online: Option<OnlineKeys>,
}

/// Where the time comes from, in milliseconds since 1970.
pub(crate) type Clock = Box<dyn Fn() -> i64 + Send + Sync>;

impl App {
    pub(crate) fn new(store: Box<dyn Store>, clock: Clock, online: Option<OnlineKeys>) -> Self {
        Self {
            store,
            seen: Default::default(),
            failed_enrolments: Default::default(),
            failed_secrets: Default::default(),
            pushes: tokio::sync::Semaphore::new(sync::PUSHES),
            clock,
            online,
        }
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> i64 {
        (self.clock)()
    }
}

/// All endpoints over `app`.
pub(crate) fn router(app: Arc<App>) -> Router {
    let migrations = get(operators::migrations)
        .layer(middleware::from_fn_with_state(REQUEST, within))
        .merge(post(publish::publish).layer(middleware::from_fn_with_state(PUBLISH, within)));
    let others = Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/readyz", get(ready))
        .route("/api/enroll", post(devices::enroll))
        .route("/api/poll", get(devices::poll))
        .route("/api/state", post(devices::state))
        .route("/api/token", post(tokens::rotate))
        .route("/api/devices", get(tokens::devices))
        .route("/api/devices/{id}/revoke", post(tokens::revoke))
        .route("/api/migrations/pending", get(seed::pending))
        .route("/api/migrations/status", post(seed::status))
        .route("/repository/{app}/targets.json", get(repository::targets))
        .route("/repository/{app}/targets/{path}", get(repository::target))
        .route("/repository/{app}/{file}", get(repository::metadata))
        .route("/api/roots", post(signed::roots))
        .route("/api/trust/{app}", get(signed::trust))
        .route("/api/clients", get(operators::clients))
        .route("/api/clients/{id}", get(operators::client))
        .route("/api/clients/{id}/history", get(operators::history))
        .route("/api/clients/{id}/space", put(sync::bind))
        .route("/api/sync/push", post(sync::push))
        .route("/api/sync/pull", get(sync::pull))
        .route("/api/sync/sums", get(sync::sums))
        .route("/api/conflicts", get(sync::conflicts))
        .route("/api/plan", get(operators::plan).put(operators::set_plan))
        .route("/api/audit", get(operators::audit))
        .layer(middleware::from_fn_with_state(REQUEST, within));
    others
        .route("/api/migrations", migrations)
        .fallback(no_route)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(log))
        .with_state(app)
}

async fn ready(State(app): State<Arc<App>>) -> Result<&'static str, ApiError> {
    app.store.ready().await?;
    Ok("ready")
}

async fn no_route(uri: Uri) -> ApiError {
    ApiError::NoRoute(uri.path().chars().take(200).collect())
}

async fn wrong_method(method: Method, uri: Uri) -> ApiError {
    ApiError::WrongMethod { method: method.to_string(), path: uri.path().chars().take(200).collect() }
}

async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::Timeout.into_response(),
    }
}

async fn log(request: Request, next: Next) -> Response {
    let began = std::time::Instant::now();
    // The path and not the query: there is nothing secret in either, but only the path is bounded in kind.
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = next.run(request).await;
    debug!("{method} {path}: {} in {:?}", response.status().as_u16(), began.elapsed());
    response
}
