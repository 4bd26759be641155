//! The wire of a replica: it counts what goes over it, stops exchanges, and lets a story in between an answer and its arrival.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use whimbrel::{
    migrate::halt::Halt,
    transport::{Http, HttpRequest, HttpResponse, Sending, TransportError, http::Reqwest},
};

/// What went over a wire.
#[derive(Debug)]
pub struct Traffic {
    /// Bytes of bodies, both ways.
    pub bytes: AtomicU64,
    /// Pulls that were answered.
    pub pulls: AtomicU64,
    /// The exchange is stopped once so many were.
    pub stop_after: AtomicU64,
}

impl Default for Traffic {
    fn default() -> Self {
        Self { bytes: AtomicU64::new(0), pulls: AtomicU64::new(0), stop_after: AtomicU64::new(u64::MAX) }
    }
}

/// Gets each request with the answer that the server gave to it; what it returns is what arrives.
pub type Meddle = Box<dyn FnMut(&HttpRequest, HttpResponse) -> Result<HttpResponse, TransportError> + Send>;

/// Where a story's [`Meddle`] is put, if it has one.
pub(super) type Meddler = Arc<Mutex<Option<Meddle>>>;

/// A wire that counts, and that can be meddled with.
pub(super) struct Watched {
    pub(super) inner: Reqwest,
    pub(super) traffic: Arc<Traffic>,
    pub(super) halt: Halt,
    pub(super) meddler: Meddler,
}

impl Http for Watched {
    fn send(&self, request: HttpRequest) -> Sending<'_> {
        Box::pin(async move {
            let (sent, pull) = (request.body.len(), request.url.contains("/api/sync/pull"));
            let asked = request.clone();
            let mut answer = self.inner.send(request).await?;
            if let Some(meddle) = self.meddler.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
                answer = meddle(&asked, answer)?;
            }
            self.traffic.bytes.fetch_add((sent + answer.body.len()) as u64, Relaxed);
            if pull && self.traffic.pulls.fetch_add(1, Relaxed) + 1 >= self.traffic.stop_after.load(Relaxed) {
                self.halt.stop.store(true, Relaxed);
            }
            Ok(answer)
        })
    }
}

/// A wire that was cut before the answer came.
pub fn lost(request: &HttpRequest) -> TransportError {
    TransportError::Unreachable { url: request.url.clone(), why: "the wire was cut before the answer".to_owned() }
}
