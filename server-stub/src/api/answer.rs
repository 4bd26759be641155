//! Reading what is asked and writing what is answered: bounded JSON in, JSON with an ETag out.

use std::{str::FromStr, time::Duration};

use axum::{
    body::{Body, HttpBody},
    extract::{
        FromRequestParts, Path, Query,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, HeaderValue, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::{Serialize, de::DeserializeOwned};
use whimbrel_shared::ids::Digest;

use crate::problem::ApiError;

/// Longest silence inside a body. Three hundred senders that stop half-way are gone within fifteen seconds.
const SILENCE: Duration = Duration::from_secs(10);
/// How much of a body that is too large is read and thrown away, so that its sender gets to read why.
const THROWN_AWAY: usize = 8 * 1024 * 1024;

/// The query of the address. Wrong ones are answered with a problem.
pub(super) struct Asked<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let query: Result<Query<T>, QueryRejection> = Query::from_request_parts(parts, state).await;
        match query {
            Ok(Query(asked)) => Ok(Self(asked)),
            Err(rejection) => Err(ApiError::BadInput(rejection.body_text())),
        }
    }
}

/// Parts of the path as text. What is no text is answered with a problem.
pub(super) struct InPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path: Result<Path<T>, PathRejection> = Path::from_request_parts(parts, state).await;
        match path {
            Ok(Path(parts)) => Ok(Self(parts)),
            Err(rejection) => Err(ApiError::BadInput(rejection.body_text())),
        }
    }
}

/// A part of the path that has to be an id.
pub(super) fn id<T: FromStr>(text: &str) -> Result<T, ApiError>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| ApiError::BadInput(e.to_string()))
}

/// The body as JSON.
pub(super) async fn json<T: DeserializeOwned>(body: Body, limit_bytes: usize, endpoint: &'static str) -> Result<T, ApiError> {
    from_json(&read(body, limit_bytes).await?, endpoint)
}

/// Bytes as JSON.
pub(super) fn from_json<T: DeserializeOwned>(bytes: &[u8], endpoint: &'static str) -> Result<T, ApiError> {
    serde_json::from_slice(bytes).map_err(|e| ApiError::BadBody { endpoint, why: e.to_string() })
}

/// The whole body, if it has at most `limit_bytes`, and each part of it arrives soon after the last.
pub(super) async fn read(mut body: Body, limit_bytes: usize) -> Result<Bytes, ApiError> {
    let mut read = BytesMut::new();
    let mut total = 0usize;
    let promised = body.size_hint().lower();
    if promised > (limit_bytes + THROWN_AWAY) as u64 {
        return Err(ApiError::TooLarge { limit_bytes });
    }
    loop {
        let frame = tokio::time::timeout(SILENCE, body.frame()).await.map_err(|_| ApiError::BodyTooSlow)?;
        let Some(frame) = frame else { break };
        let frame = frame.map_err(|e| ApiError::BodyBroken(e.to_string()))?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= limit_bytes {
            read.extend_from_slice(&data);
        } else if total > limit_bytes + THROWN_AWAY {
            break;
        }
    }
    if total > limit_bytes {
        return Err(ApiError::TooLarge { limit_bytes });
    }
    Ok(read.freeze())
}

/// `value` as JSON.
pub(super) fn answer<T: Serialize>(value: &T) -> Result<Response, ApiError> {
    let mut response = encode(value)?.into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// `value` as JSON with its ETag, or 304 when the asker has it.
pub(super) fn answer_if_changed<T: Serialize>(asked: &HeaderMap, value: &T) -> Result<Response, ApiError> {
    let body = encode(value)?;
    Ok(bytes_if_changed(asked, Digest::of(&body), body))
}

/// JSON bytes with their digest as ETag, or 304 when the asker has them.
pub(super) fn bytes_if_changed(asked: &HeaderMap, digest: Digest, body: Vec<u8>) -> Response {
    let etag = format!("\"{digest}\"");
    let known = knows(asked, &digest);
    let mut response = if known { StatusCode::NOT_MODIFIED.into_response() } else { body.into_response() };
    let headers = response.headers_mut();
    if !known {
        let kind = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, kind);
    }
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        headers.insert(header::ETAG, etag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}

/// Whether the asker has what has this digest.
pub(super) fn knows(asked: &HeaderMap, digest: &Digest) -> bool {
    let etag = format!("\"{digest}\"");
    asked.get_all(header::IF_NONE_MATCH).iter().any(|v| v.to_str().is_ok_and(|v| names(v, &etag)))
}

/// Digest of `value` as JSON.
pub(super) fn digest<T: Serialize>(value: &T) -> Result<Digest, ApiError> {
    Ok(Digest::of(&encode(value)?))
}

/// Whether an `If-None-Match` names `etag` (RFC 9110, 13.1.2: weak comparison).
fn names(if_none_match: &str, etag: &str) -> bool {
    if_none_match.split(',').map(str::trim).any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == etag)
}

/// `value` as JSON bytes.
pub(super) fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(value).map_err(|e| ApiError::Store(crate::store::StoreError::Damaged(e.to_string())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_etag_is_found_alone_in_a_list_and_behind_a_proxy() {
        let check = |header: &str, expected| assert_eq!(names(header, "\"a\""), expected, "{header}");
        check("\"a\"", true);
        check("\"b\", \"a\"", true);
        check("W/\"a\"", true);
        check("*", true);
        check("\"b\"", false);
        check("a", false);
        check("", false);
    }
}
