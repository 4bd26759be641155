//! What operators read, and `PUT /api/plan`.

use std::sync::Arc;

use axum::{body::Body, extract::State, response::Response};
use serde::Deserialize;
use whimbrel_shared::{
    ids::{AppName, ClientId},
    protocol::{
        MAX_JSON_BYTES,
        clients::{MigrationsResponse, PlanRequest},
        poll::Order,
    },
};

use super::{
    App,
    answer::{self, Asked, InPath},
};
use crate::{
    decide::signed,
    problem::ApiError,
    secrets::Scope,
    store::{ClientsPage, Key, Page, Refusal},
};

/// Most entries on one page.
const MAX_LIMIT: u32 = 500;

#[derive(Deserialize)]
pub(super) struct OneApp {
    app: AppName,
}

#[derive(Deserialize)]
pub(super) struct Clients {
    app: Option<AppName>,
    outdated: Option<String>,
    after: Option<ClientId>,
    limit: Option<u32>,
}

#[derive(Deserialize)]
pub(super) struct Newest {
    before: Option<i64>,
    limit: Option<u32>,
}

impl Newest {
    fn page(&self) -> Result<Page, ApiError> {
        Ok(Page { before: self.before, limit: limit(self.limit)? })
    }
}

pub(super) async fn migrations(State(state): State<Arc<App>>, key: Key, Asked(OneApp { app }): Asked<OneApp>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let migrations = state.store.migrations(app.clone()).await?;
    let migrations = migrations.ok_or(Refusal::NoApp(app))?;
    answer::answer(&MigrationsResponse { migrations })
}

pub(super) async fn clients(State(state): State<Arc<App>>, key: Key, Asked(asked): Asked<Clients>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let outdated = match asked.outdated.as_deref() {
        None | Some("0" | "false") => false,
        Some("1" | "true") => true,
        Some(other) => {
            return Err(ApiError::BadInput(format!("outdated is 0 or 1, not {other:?}")));
        }
    };
    let page = ClientsPage { app: asked.app, outdated, after: asked.after, limit: limit(asked.limit)? };
    answer::answer(&state.store.clients(page).await?)
}

pub(super) async fn client(State(state): State<Arc<App>>, key: Key, InPath(id): InPath<String>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let id: ClientId = answer::id(&id)?;
    let client = state.store.client(id).await?;
    answer::answer(&client.ok_or(Refusal::NoClient(id))?)
}

pub(super) async fn history(
    State(state): State<Arc<App>>,
    key: Key,
    InPath(id): InPath<String>,
    Asked(asked): Asked<Newest>,
) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let id: ClientId = answer::id(&id)?;
    let history = state.store.history(id, asked.page()?).await?;
    answer::answer(&history.ok_or(Refusal::NoClient(id))?)
}

pub(super) async fn plan(State(state): State<Arc<App>>, key: Key, Asked(OneApp { app }): Asked<OneApp>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    let plan = state.store.plan(app.clone()).await?;
    answer::answer(&plan.ok_or(Refusal::NoApp(app))?)
}

pub(super) async fn set_plan(State(state): State<Arc<App>>, key: Key, body: Body) -> Result<Response, ApiError> {
    key.may(Scope::Operate)?;
    let request: PlanRequest = answer::json(body, MAX_JSON_BYTES, "plan").await?;
    // Devices refuse such an order; better that the one who gives it hears of it.
    if let Some(Order::RevertDownTo { version }) = request.order
        && let Some(targets) = state.store.repository(request.app.clone()).await?.and_then(|r| r.targets)
    {
        signed::check_revert(&targets, version)?;
    }
    let plan = state.store.set_plan(request, key.name, state.now_ms()).await?;
    answer::answer(&plan)
}

pub(super) async fn audit(State(state): State<Arc<App>>, key: Key, Asked(asked): Asked<Newest>) -> Result<Response, ApiError> {
    key.may(Scope::Read)?;
    answer::answer(&state.store.audit(asked.page()?).await?)
}

pub(super) fn limit(asked: Option<u32>) -> Result<u32, ApiError> {
    match asked.unwrap_or(100) {
        limit @ 1..=MAX_LIMIT => Ok(limit),
        other => Err(ApiError::BadInput(format!("limit is {other}; it is between 1 and {MAX_LIMIT}"))),
    }
}
