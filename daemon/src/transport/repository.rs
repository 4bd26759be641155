//! Files of a TUF repository, from the server or a mirror of it: bytes that are judged elsewhere.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use whimbrel_shared::protocol::problem::Problem;

use super::{Http, HttpRequest, TransportError, server::Credential, server::percent};

/// Longest silence in the middle of a file.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(30);
/// Largest problem document that is read of a refusal.
const MAX_PROBLEM_BYTES: u64 = 64 * 1024;

/// One place that serves a repository.
#[derive(Clone)]
pub struct Mirror {
    http: Arc<dyn Http>,
    metadata: String,
    targets: String,
    credential: Credential,
}

impl std::fmt::Debug for Mirror {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mirror({})", self.metadata)
    }
}

impl Mirror {
    /// The repository whose metadata lies below `metadata` and whose targets lie below `targets`. `credential` goes to
    /// nobody but that place.
    pub fn new(http: Arc<dyn Http>, metadata: &str, targets: &str, credential: Credential) -> Self {
        let bare = |url: &str| url.trim_end_matches('/').to_owned();
        Self { http, metadata: bare(metadata), targets: bare(targets), credential }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.metadata
    }

    /// A metadata file of at most `max_bytes`; none where the answer is 404. `name` is a path segment already.
    pub async fn metadata(&self, name: &str, max_bytes: u64) -> Result<Option<Bytes>, TransportError> {
        self.get(format!("{}/{name}", self.metadata), max_bytes).await
    }

    /// A target file of at most `max_bytes`; none where the answer is 404.
    pub async fn target(&self, path: &str, max_bytes: u64) -> Result<Option<Bytes>, TransportError> {
        let segments: Vec<String> = path.split('/').map(percent).collect();
        self.get(format!("{}/{}", self.targets, segments.join("/")), max_bytes).await
    }

    async fn get(&self, url: String, max_bytes: u64) -> Result<Option<Bytes>, TransportError> {
        let mut headers = vec![("accept", "application/json, application/octet-stream".to_owned())];
        self.credential.give(&mut headers);
        let request = HttpRequest {
            method: "GET",
            url: url.clone(),
            headers,
            body: Bytes::new(),
            max_bytes: max_bytes.max(MAX_PROBLEM_BYTES),
            progress_timeout: PROGRESS_TIMEOUT,
        };
        let response = self.http.send(request).await?;
        match response.status {
            200 if response.body.len() as u64 > max_bytes => Err(TransportError::TooLarge { url, max_bytes }),
            200 => Ok(Some(response.body)),
            404 => Ok(None),
            status => {
                let problem = serde_json::from_slice::<Problem>(&response.body).unwrap_or_else(|_| Problem {
                    kind: "about:blank".to_owned(),
                    title: String::new(),
                    status,
                    detail: "a file of the repository could not be had".to_owned(),
                    remedy: String::new(),
                    client_id: None,
                });
                Err(TransportError::Refused { url, status, problem: Box::new(problem), retry_after: None })
            }
        }
    }
}
