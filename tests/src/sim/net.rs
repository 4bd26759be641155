//! What is between a file's daemon and the server: a network that loses, doubles, delays and cuts, and that sees everything.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use fastrand::Rng;
use sha2::{Digest as _, Sha256};
use whimbrel::transport::{Http, HttpRequest, HttpResponse, Sending, TransportError};
use whimbrel_server::endpoints::{Answer, Endpoints};
use whimbrel_shared::{
    packed,
    protocol::push::{PushHead, PushRequest, PushResponse},
};

use super::{
    app::{App, Place},
    ledger::Ledger,
};

/// Where the server is said to be.
pub const URL: &str = "http://simulated";

/// How often what goes wrong, of 1,000.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A request that does not arrive.
    pub dropped: u32,
    /// An answer that does not.
    pub lost: u32,
    /// A request that arrives twice, or three times.
    pub doubled: u32,
    /// A request that arrives after a later one.
    pub late: u32,
    /// A body that ends somewhere.
    pub cut: u32,
    /// An exchange that dies between two transactions.
    pub killed: u32,
    /// An application that writes in the middle of an exchange.
    pub written: u32,
    /// Another file that exchanges in the middle of an exchange.
    pub others: u32,
    /// Most milliseconds that an answer is under way: who believes that it took as long as the request, believes in a wrong time.
    pub slow_ms: u32,
}

/// A file of the simulation, as far as more than its daemon touches it.
#[derive(Debug)]
pub struct Side {
    /// Its application; none while the file is being replaced.
    pub app: Option<App>,
    /// What its wall clock is ahead of the true time.
    pub skew_ms: i64,
    /// Number of its boot, and when that began in true time.
    pub boot: (u32, i64),
    /// Requests that are under way and will arrive later.
    pub late: Vec<HttpRequest>,
}

impl Side {
    /// The version that the file is at.
    pub fn version(&self) -> u32 {
        self.app.as_ref().expect("it is open").version
    }

    /// Every token that is in the file, where it is.
    pub fn places(&self) -> BTreeSet<Place> {
        self.app.as_ref().expect("it is open").places()
    }
}

/// What everything in a seed shares.
pub struct Shared {
    /// Chance.
    pub rng: Mutex<Rng>,
    /// True time, in milliseconds since 1970.
    pub now_ms: Arc<AtomicI64>,
    /// Whether anything goes wrong at all.
    pub rough: AtomicBool,
    /// How much.
    pub faults: Faults,
    /// How often something may still come in between in this step: an exchange in which somebody writes every time never ends.
    pub between: AtomicU32,
    /// The server.
    pub endpoints: Mutex<Endpoints>,
    /// The accounts.
    pub ledger: Mutex<Ledger>,
    /// Hash of everything that was sent.
    pub wire: Mutex<Sha256>,
    /// The files.
    pub sides: Vec<Mutex<Side>>,
    /// Number of the last token.
    pub token: Mutex<u32>,
    /// Every push as it was sent, to be sent again in the end.
    pub pushes: Mutex<Vec<HttpRequest>>,
    /// What happened, for people who look at one seed.
    pub story: Option<Mutex<Vec<String>>>,
}

/// Locks what only one thread uses.
pub fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// A number from a range.
    pub fn roll(&self, below: u32) -> u32 {
        lock(&self.rng).u32(0..below)
    }

    /// Whether something goes wrong that does so `of_1000` times.
    pub fn goes_wrong(&self, of_1000: u32) -> bool {
        self.rough.load(Relaxed) && self.roll(1_000) < of_1000
    }

    /// Whether something comes in between that does so `of_1000` times.
    pub fn comes_between(&self, of_1000: u32) -> bool {
        let left = self.between.load(Relaxed);
        let comes = left > 0 && self.goes_wrong(of_1000);
        self.between.store(left - u32::from(comes), Relaxed);
        comes
    }

    /// Time passes.
    pub fn pass(&self, most_ms: u32) {
        let ms = i64::from(self.roll(most_ms)) + 1;
        self.now_ms.fetch_add(ms, Relaxed);
    }

    /// The clock on a file's wall.
    pub fn wall_ms(&self, file: usize) -> i64 {
        self.now_ms.load(Relaxed) + lock(&self.sides[file]).skew_ms
    }

    /// Notes what happened, if anybody looks.
    pub fn tell(&self, what: impl FnOnce() -> String) {
        if let Some(story) = &self.story {
            lock(story).push(format!("{} {}", self.now_ms.load(Relaxed), what()));
        }
    }

    /// The application of a file writes something.
    pub fn write(&self, file: usize) {
        let wall_ms = self.wall_ms(file);
        let side = lock(&self.sides[file]);
        let Some(app) = &side.app else { return };
        let wrote = app.write(&mut lock(&self.rng), wall_ms, &mut lock(&self.token));
        self.tell(|| format!("f{file} writes +{:?} -{:?}\n{}", wrote.appeared, wrote.vanished, wrote.sql));
        lock(&self.ledger).wrote(file, &wrote);
    }

    /// The application of a file runs statements.
    pub fn run(&self, file: usize, sql: &str) {
        let wall_ms = self.wall_ms(file);
        let side = lock(&self.sides[file]);
        let Some(app) = &side.app else { return };
        let wrote = app.transaction(sql, wall_ms);
        self.tell(|| format!("f{file} decides +{:?} -{:?}\n{sql}", wrote.appeared, wrote.vanished));
        lock(&self.ledger).wrote(file, &wrote);
    }

    /// Brings a request to the server and looks at what it says.
    pub async fn deliver(&self, request: &HttpRequest) -> Answer {
        let path = request.url.strip_prefix(URL).unwrap_or(&request.url);
        let headers: Vec<(&str, &str)> = request.headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let endpoints = lock(&self.endpoints).clone();
        let answer = endpoints.answer(request.method, path, &headers, request.body.clone()).await;
        {
            let mut wire = lock(&self.wire);
            wire.update(path);
            wire.update(&request.body);
            wire.update(answer.status.to_be_bytes());
            wire.update(&answer.body);
        }
        if path == "/api/sync/push" && answer.status == 200 {
            self.look(request, &answer);
        } else if answer.status != 200 {
            self.tell(|| format!("   {} {}", answer.status, String::from_utf8_lossy(&answer.body)));
        }
        answer
    }

    fn look(&self, request: &HttpRequest, answer: &Answer) {
        let mut ledger = lock(&self.ledger);
        let (Ok((head, changes)), Ok(answer)) =
            (packed::unpack_changes::<PushHead>(&request.body), serde_json::from_slice::<PushResponse>(&answer.body))
        else {
            ledger.wrong.push("a push or its answer cannot be read".to_owned());
            return;
        };
        let request = PushRequest { head, changes };
        self.tell(|| {
            let lines: Vec<String> =
                answer.of(&request).into_iter().flatten().map(|a| format!("     {:?} -> {:?} {:?}", a.change, a.version, a.answer)).collect();
            format!("   push {} first {} newest {}\n{}", request.head.order, answer.first, answer.newest, lines.join("\n"))
        });
        ledger.answered(&request, &answer);
    }
}

/// One file's way to the server.
pub struct Net {
    /// The rest.
    pub shared: Arc<Shared>,
    /// Whose way it is.
    pub file: usize,
}

impl Net {
    async fn carry(&self, request: HttpRequest) -> Result<HttpResponse, TransportError> {
        let shared = &self.shared;
        let unreachable = || TransportError::Unreachable { url: request.url.clone(), why: "the wire was cut".to_owned() };
        shared.pass(400);
        shared.tell(|| format!("f{} {} {}", self.file, request.method, request.url.strip_prefix(URL).unwrap_or_default()));
        if shared.comes_between(shared.faults.written) {
            shared.write(self.file);
        }
        // What was late arrives before or after this one.
        let mut late = std::mem::take(&mut lock(&shared.sides[self.file]).late);
        if !late.is_empty() && shared.roll(2) == 0 {
            for request in late.drain(..) {
                shared.deliver(&request).await;
            }
        }
        if shared.goes_wrong(shared.faults.dropped) {
            lock(&shared.sides[self.file]).late.extend(late);
            return Err(unreachable());
        }
        if shared.goes_wrong(shared.faults.late) {
            late.push(request.clone());
            lock(&shared.sides[self.file]).late.extend(late);
            return Err(unreachable());
        }
        let mut sent = request.clone();
        if !request.body.is_empty() && shared.goes_wrong(shared.faults.cut) {
            let at = shared.roll(request.body.len() as u32) as usize;
            sent.body = request.body.slice(..at);
        }
        let mut answer = shared.deliver(&sent).await;
        if shared.goes_wrong(shared.faults.doubled) {
            answer = shared.deliver(&sent).await;
            if shared.roll(2) == 0 {
                answer = shared.deliver(&sent).await;
            }
        }
        if request.method == "POST" && answer.status == 200 {
            lock(&shared.pushes).push(request.clone());
        }
        for request in late {
            shared.deliver(&request).await;
        }
        shared.pass(shared.faults.slow_ms);
        if shared.comes_between(shared.faults.written) {
            shared.write(self.file);
        }
        if shared.goes_wrong(shared.faults.lost) {
            return Err(unreachable());
        }
        let mut body = answer.body;
        if !body.is_empty() && shared.goes_wrong(shared.faults.cut) {
            body = body.slice(..shared.roll(body.len() as u32) as usize);
        }
        let header = |name: &str| answer.headers.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        Ok(HttpResponse { status: answer.status, etag: header("etag"), retry_after: header("retry-after"), date: None, body })
    }
}

impl Http for Net {
    fn send(&self, request: HttpRequest) -> Sending<'_> {
        Box::pin(self.carry(request))
    }
}

/// A request of an operator or of nobody's daemon.
pub fn get(path: String, token: &str, accept: &str) -> HttpRequest {
    HttpRequest {
        method: "GET",
        url: format!("{URL}{path}"),
        headers: vec![("accept", accept.to_owned()), ("authorization", format!("Bearer {token}"))],
        body: Bytes::new(),
        max_bytes: u64::MAX,
        progress_timeout: std::time::Duration::from_secs(1),
    }
}

/// A request with a body, of who proves itself by a header.
pub fn post(path: &str, proof: (&'static str, String), body: Bytes) -> HttpRequest {
    let headers = vec![("content-type", "application/json".to_owned()), proof];
    HttpRequest {
        method: "POST",
        url: format!("{URL}{path}"),
        headers,
        body,
        max_bytes: u64::MAX,
        progress_timeout: std::time::Duration::from_secs(1),
    }
}
