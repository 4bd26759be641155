//! The server's endpoints as functions (DESIGN 11), and the seed's two.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use whimbrel_shared::{
    change::{MAX_PAGE_BYTES, Row},
    ids::{AppName, Digest},
    migration::{SeedMigration, TargetEntry, Targets},
    packed,
    protocol::{
        MAX_JSON_BYTES,
        enroll::{EnrollRequest, EnrollResponse},
        poll::PollResponse,
        problem::Problem,
        publish::{PublishRequest, PublishResponse, RootRequest, TrustResponse},
        pull::{PullHead, PullRequest},
        push::PushResponse,
        report::{SeedStatus, StatusRequest, StatusResponse},
        state::StateRequest,
        sums::{SumsRequest, SumsResponse},
        token::{TokenRequest, TokenResponse},
    },
    status::Event,
    tuf::{Envelope, Role},
};

use super::{Http, HttpRequest, HttpResponse, TransportError, repository::Mirror, retry_after};
use crate::ambient::Ambient;

/// Largest targets metadata that is read (DESIGN 6).
const MAX_TARGETS_BYTES: u64 = 5 * 1024 * 1024;
/// Largest list of seed-form migrations that is read: it carries all bodies.
const MAX_PENDING_BYTES: u64 = 64 * 1024 * 1024;
/// Largest answer to a push and largest list of sums that is read: a page of values in JSON, and the rest.
const MAX_ANSWER_BYTES: u64 = 5 * MAX_PAGE_BYTES as u64;
const JSON: &str = "application/json";
/// Longest silence in the middle of an answer.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);

/// A server.
#[derive(Clone)]
pub struct Server {
    http: Arc<dyn Http>,
    url: String,
    credential: Credential,
    ambient: Ambient,
}

/// What a request proves itself with.
#[derive(Clone)]
pub enum Credential {
    /// Nothing: enrolment, and servers of the seed's kind.
    None,
    /// A device's token.
    Device(String),
    /// An operator's or publisher's key.
    ApiKey(String),
}

impl Credential {
    /// Adds the header that shows it.
    pub(super) fn give(&self, headers: &mut Vec<(&'static str, String)>) {
        match self {
            Self::None => {}
            Self::Device(token) => headers.push(("authorization", format!("Bearer {token}"))),
            Self::ApiKey(key) => headers.push(("x-api-key", key.clone())),
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Server({})", self.url)
    }
}

/// An answer that may be "as before".
#[derive(Debug)]
pub enum Fresh<T> {
    /// 304.
    AsBefore,
    /// Another one, with its `ETag`.
    New(T, Option<String>),
}

impl Server {
    /// The server at `url`, without a slash at its end.
    pub fn new(http: Arc<dyn Http>, url: String, credential: Credential, ambient: Ambient) -> Self {
        Self { http, url, credential, ambient }
    }

    /// Where it serves the repository of `app`.
    pub fn repository(&self, app: &AppName) -> Mirror {
        let base = format!("{}/repository/{app}", self.url);
        Mirror::new(self.http.clone(), &base, &format!("{base}/targets"), self.credential.clone())
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `POST /api/enroll`.
    pub async fn enroll(&self, request: &EnrollRequest) -> Result<EnrollResponse, TransportError> {
        self.post("/api/enroll", request).await
    }

    /// `POST /api/token`: another token, given by its digest, takes the place of the one that is sent.
    pub async fn rotate(&self, next: Digest) -> Result<TokenResponse, TransportError> {
        self.post("/api/token", &TokenRequest { next }).await
    }

    /// `POST /api/state`.
    pub async fn state(&self, request: &StateRequest) -> Result<(), TransportError> {
        self.post::<serde_json::Value>("/api/state", request).await.map(|_| ())
    }

    /// `GET /api/poll`.
    pub async fn poll(&self, etag: Option<&str>) -> Result<Fresh<PollResponse>, TransportError> {
        self.get("/api/poll", etag, MAX_JSON_BYTES as u64 * 8).await
    }

    /// `GET /repository/{app}/targets.json`, with the digest of its bytes.
    pub async fn targets(&self, app: &AppName) -> Result<Option<(Targets, Digest)>, TransportError> {
        let path = format!("/repository/{app}/targets.json");
        match self.send("GET", &path, None, JSON, Bytes::new(), MAX_TARGETS_BYTES).await {
            Ok(response) => Ok(Some((self.read(&path, &response.body)?, Digest::of(&response.body)))),
            Err(error) if error.status() == Some(404) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// `GET /repository/{app}/targets/{path}`: exactly as many bytes as the entry promises.
    pub async fn target(&self, app: &AppName, entry: &TargetEntry) -> Result<Bytes, TransportError> {
        let path = format!("/repository/{app}/targets/{}", percent(&entry.path()));
        let response = self.send("GET", &path, None, JSON, Bytes::new(), entry.length).await?;
        Ok(response.body)
    }

    /// `POST /api/migrations/status` with a batch.
    pub async fn report(&self, reports: Vec<Event>) -> Result<StatusResponse, TransportError> {
        self.post("/api/migrations/status", &StatusRequest::Batch { reports }).await
    }

    /// `GET /api/migrations/pending` in the seed's form.
    pub async fn seed_pending(&self, etag: Option<&str>) -> Result<Fresh<Vec<SeedMigration>>, TransportError> {
        self.get("/api/migrations/pending", etag, MAX_PENDING_BYTES).await
    }

    /// `POST /api/migrations/status` in the seed's form.
    pub async fn seed_report(&self, status: &SeedStatus) -> Result<(), TransportError> {
        self.post::<serde_json::Value>("/api/migrations/status", status).await.map(|_| ())
    }

    /// `POST /api/migrations`: a publisher's new links.
    pub async fn publish(&self, request: &PublishRequest) -> Result<PublishResponse, TransportError> {
        self.post("/api/migrations", request).await
    }

    /// `GET /api/trust/{app}`: the server's own keys, and what is signed of the app.
    pub async fn trust(&self, app: &AppName) -> Result<TrustResponse, TransportError> {
        let path = format!("/api/trust/{app}");
        let response = self.send("GET", &path, None, JSON, Bytes::new(), MAX_JSON_BYTES as u64).await?;
        self.read(&path, &response.body)
    }

    /// `GET /repository/{app}/{version}.targets.json`: signed targets, with nothing verified.
    pub async fn signed_targets(&self, app: &AppName, version: u64) -> Result<Envelope, TransportError> {
        let path = format!("/repository/{app}/{}", Role::Targets.file(version));
        let response = self.send("GET", &path, None, JSON, Bytes::new(), MAX_TARGETS_BYTES).await?;
        self.read(&path, &response.body)
    }

    /// `POST /api/roots`: the next root of an app.
    pub async fn upload_root(&self, request: &RootRequest) -> Result<TrustResponse, TransportError> {
        self.post("/api/roots", request).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, etag: Option<&str>, max_bytes: u64) -> Result<Fresh<T>, TransportError> {
        let response = self.send("GET", path, etag, JSON, Bytes::new(), max_bytes).await?;
        if response.status == 304 {
            return Ok(Fresh::AsBefore);
        }
        Ok(Fresh::New(self.read(path, &response.body)?, response.etag))
    }

    async fn post<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, TransportError> {
        let body = serde_json::to_vec(body).map_err(|e| TransportError::SetUp(format!("a request cannot be written: {e}")))?;
        let response = self.send("POST", path, None, JSON, body.into(), MAX_JSON_BYTES as u64).await?;
        self.read(path, &response.body)
    }

    /// `POST /api/sync/push`, packed.
    pub async fn push(&self, packed: Bytes) -> Result<PushResponse, TransportError> {
        let path = "/api/sync/push";
        let response = self.send("POST", path, None, packed::CONTENT_TYPE, packed, MAX_ANSWER_BYTES).await?;
        self.read(path, &response.body)
    }

    /// `GET /api/sync/pull`, packed.
    pub async fn pull(&self, asked: &PullRequest) -> Result<(PullHead, Vec<Row>), TransportError> {
        let path = query("/api/sync/pull", asked);
        let response = self.send("GET", &path, None, packed::CONTENT_TYPE, Bytes::new(), packed::MAX_PACKED_BYTES as u64).await?;
        packed::unpack_rows(&response.body)
            .map_err(|e| TransportError::NotUnderstood { url: format!("{}/api/sync/pull", self.url), why: e.to_string() })
    }

    /// `GET /api/sync/sums`.
    pub async fn sums(&self, asked: &SumsRequest) -> Result<SumsResponse, TransportError> {
        let path = query("/api/sync/sums", asked);
        let response = self.send("GET", &path, None, JSON, Bytes::new(), MAX_ANSWER_BYTES).await?;
        self.read(&path, &response.body)
    }

    fn read<T: DeserializeOwned>(&self, path: &str, body: &[u8]) -> Result<T, TransportError> {
        serde_json::from_slice(body).map_err(|e| TransportError::NotUnderstood { url: format!("{}{path}", self.url), why: e.to_string() })
    }

    /// `form`: the media type of the body, and of the answer where rows are asked for.
    async fn send(
        &self,
        method: &'static str,
        path: &str,
        etag: Option<&str>,
        form: &'static str,
        body: Bytes,
        max_bytes: u64,
    ) -> Result<HttpResponse, TransportError> {
        let url = format!("{}{path}", self.url);
        let accepted = if form == JSON || !body.is_empty() { JSON.to_owned() } else { format!("{form}, {JSON};q=0.1") };
        let mut headers = vec![("accept", accepted)];
        if !body.is_empty() {
            headers.push(("content-type", form.to_owned()));
        }
        self.credential.give(&mut headers);
        if let Some(etag) = etag {
            headers.push(("if-none-match", etag.to_owned()));
        }
        // A refusal carries a problem document, which may be longer than what was asked for.
        let response = self
            .http
            .send(HttpRequest { method, url: url.clone(), headers, body, max_bytes: max_bytes.max(64 * 1024), progress_timeout: PROGRESS_TIMEOUT })
            .await?;
        match response.status {
            200..=299 if response.body.len() as u64 > max_bytes => Err(TransportError::TooLarge { url, max_bytes }),
            200..=299 | 304 => Ok(response),
            status => {
                // An HTTP date counts from the server's own clock: ours may stand in 1970.
                let their_now = response.date.as_deref().and_then(|d| chrono::DateTime::parse_from_rfc2822(d).ok()).map(|d| d.timestamp_millis());
                let now_ms = their_now.unwrap_or_else(|| self.ambient.now_ms());
                let asked = response.retry_after.as_deref().and_then(|v| retry_after(v, now_ms));
                let problem = serde_json::from_slice::<Problem>(&response.body).unwrap_or_else(|_| Problem {
                    kind: "about:blank".to_owned(),
                    title: String::new(),
                    status,
                    detail: String::from_utf8_lossy(&response.body).chars().take(200).filter(|c| !c.is_control()).collect(),
                    remedy: String::new(),
                    client_id: None,
                });
                Err(TransportError::Refused { url, status, problem: Box::new(problem), retry_after: asked })
            }
        }
    }
}

/// A path with what is asked in its query.
fn query(path: &str, asked: &impl Serialize) -> String {
    let asked = serde_json::to_value(asked).expect("a question has text keys");
    let pairs = asked.as_object().into_iter().flatten().map(|(name, value)| {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        format!("{name}={}", percent(&text))
    });
    format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
}

/// A file name as a path segment.
pub(super) fn percent(name: &str) -> String {
    name.bytes().map(|b| if b.is_ascii_alphanumeric() || b"-_.~".contains(&b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect()
}
