//! The endpoints without a door, for who carries requests and answers by other means and keeps a time of its own.

use std::sync::Arc;

use axum::{Router, body::Body, http::Request};
use bytes::Bytes;
use http_body_util::BodyExt;
use tower_service::Service;

use crate::{
    api::{self, App},
    store::Store,
};

/// What a server answers with, over a store and a clock that are given.
#[derive(Clone)]
pub struct Endpoints(Router);

impl std::fmt::Debug for Endpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Endpoints")
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers, as far as they are text.
    pub headers: Vec<(String, String)>,
    /// Its whole body.
    pub body: Bytes,
}

impl Endpoints {
    /// Over a store. `clock` tells milliseconds since 1970. Nothing is signed here: there are no keys.
    pub fn new(store: Box<dyn Store>, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        Self(api::router(Arc::new(App::new(store, Box::new(clock), None))))
    }

    /// Answers one request, inside a tokio runtime. What is no request by the rules of HTTP is answered with status 400.
    pub async fn answer(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Bytes) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let Ok(request) = request.body(Body::from(body)) else {
            return Answer { status: 400, headers: Vec::new(), body: Bytes::new() };
        };
        let Ok(response) = self.0.clone().call(request).await;
        let (parts, body) = response.into_parts();
        let text = |(name, value): (&axum::http::HeaderName, &axum::http::HeaderValue)| Some((name.to_string(), value.to_str().ok()?.to_owned()));
        let headers = parts.headers.iter().filter_map(text).collect();
        // Our own answers are in memory as a whole.
        let body = body.collect().await.map_or_else(|_| Bytes::new(), |whole| whole.to_bytes());
        Answer { status: parts.status.as_u16(), headers, body }
    }
}
