//! [`Http`] over reqwest: real sockets.

use std::{path::Path, time::Duration};

use bytes::BytesMut;
use reqwest::{Client, Method, NoProxy, Proxy, redirect};
use whimbrel_shared::address::{Way, way};

use super::{
    Http, HttpRequest, HttpResponse, Sending, TransportError,
    tls::{self, Roots},
};

/// Longest that a connection may take to be made.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// Shorter than the server keeps an idle connection, so that none is reused while it is being closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(4);

/// Longest that an answer may take as a whole.
const LONGEST_ANSWER: Duration = Duration::from_secs(300);
/// In each such stretch an answer that goes on has to bring [`LEAST_BYTES`]: one byte now and then is no progress.
const STRETCH: Duration = Duration::from_secs(30);
/// Half of what the slowest modem brought.
const LEAST_BYTES: usize = 4096;

/// How servers are reached.
#[derive(Clone, Copy, Debug, Default)]
pub struct Route<'a> {
    /// A CA to trust instead of the system's, PEM.
    pub ca_file: Option<&'a Path>,
    /// Files of a certificate and its key, for servers that ask for one.
    pub client_cert: Option<(&'a Path, &'a Path)>,
    /// The proxy's address, or `none`; where it is not said, the environment's counts. `NO_PROXY` counts for both.
    pub proxy: Option<&'a str>,
    /// Whether plain HTTP may lead to another machine.
    pub insecure_http: bool,
}

/// Requests over real sockets.
#[derive(Debug)]
pub struct Reqwest {
    client: Client,
    roots: Roots,
    insecure_http: bool,
}

impl Reqwest {
    /// Prepares TLS and the connection pool; connects to nobody.
    pub fn new(route: &Route<'_>) -> Result<Self, TransportError> {
        let (tls, roots) = tls::client_config(route.ca_file, route.client_cert)?;
        let builder = match route.proxy {
            None => Client::builder(),
            Some("none") => Client::builder().no_proxy(),
            Some(address) => {
                let proxy = Proxy::all(address).map_err(|e| TransportError::SetUp(format!("proxy {address}: {}", innermost(&e))))?;
                Client::builder().proxy(proxy.no_proxy(NoProxy::from_env()))
            }
        };
        let client = builder
            .tls_backend_preconfigured(tls)
            .user_agent(concat!("whimbrel/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(1)
            // An answer from somewhere else is not the server's.
            .redirect(redirect::Policy::none())
            .build()
            .map_err(|e| TransportError::SetUp(format!("HTTP cannot be set up: {}", innermost(&e))))?;
        Ok(Self { client, roots, insecure_http: route.insecure_http })
    }

    /// Whose word makes a server's certificate good.
    pub fn roots(&self) -> Roots {
        self.roots
    }
}

impl Http for Reqwest {
    fn send(&self, request: HttpRequest) -> Sending<'_> {
        Box::pin(async move {
            let HttpRequest { method, url, headers, body, max_bytes, progress_timeout } = request;
            let unreachable = |e: &reqwest::Error| TransportError::Unreachable { url: url.clone(), why: innermost(e) };
            if !self.insecure_http && way(&url) == Ok(Way::Plain) {
                // Whoever chose the address: what proves us does not travel in the clear.
                return Err(TransportError::SetUp(format!("{url}: plain http leads to another machine, and insecure_http is not set")));
            }
            let method = Method::from_bytes(method.as_bytes()).map_err(|e| TransportError::SetUp(e.to_string()))?;
            let mut builder = self.client.request(method, &url);
            for (name, value) in &headers {
                builder = builder.header(*name, value);
            }
            if !body.is_empty() {
                builder = builder.body(body);
            }
            let stalled = |_| TransportError::Stalled { url: url.clone(), silence: progress_timeout };
            let mut response =
                tokio::time::timeout(CONNECT_TIMEOUT + progress_timeout, builder.send()).await.map_err(stalled)?.map_err(|e| unreachable(&e))?;

            let text = |name: &str| response.headers().get(name).and_then(|v| v.to_str().ok()).map(str::to_owned);
            let (status, etag, retry_after, date) = (response.status().as_u16(), text("etag"), text("retry-after"), text("date"));
            let too_large = || TransportError::TooLarge { url: url.clone(), max_bytes };
            if response.content_length().is_some_and(|length| length > max_bytes) {
                return Err(too_large());
            }
            let mut whole = BytesMut::new();
            let begun = tokio::time::Instant::now();
            let (mut since, mut had) = (begun, 0);
            loop {
                crate::ambient::pulse();
                if begun.elapsed() > LONGEST_ANSWER {
                    return Err(TransportError::Stalled { url: url.clone(), silence: LONGEST_ANSWER });
                }
                if since.elapsed() > STRETCH {
                    if whole.len() - had < LEAST_BYTES {
                        return Err(TransportError::Stalled { url: url.clone(), silence: STRETCH });
                    }
                    (since, had) = (tokio::time::Instant::now(), whole.len());
                }
                let piece = tokio::time::timeout(progress_timeout, response.chunk()).await.map_err(stalled)?.map_err(|e| unreachable(&e))?;
                let Some(piece) = piece else { break };
                // While streaming, not afterwards: an endless answer must not fill the memory first.
                if (whole.len() + piece.len()) as u64 > max_bytes {
                    return Err(too_large());
                }
                whole.extend_from_slice(&piece);
            }
            Ok(HttpResponse { status, etag, retry_after, date, body: whole.freeze() })
        })
    }
}

/// The innermost cause: what reqwest says around it repeats the address and its own layers.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
