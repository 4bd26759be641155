//! A server that has nothing but the seed's two endpoints: a bare JSON array of pending migrations, and a status flag.

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::http::Message;

/// What is asked of it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// When.
    pub at: Instant,
    /// `GET /api/migrations/pending`.
    pub what: String,
    /// The body, where it was JSON.
    pub body: Value,
}

#[derive(Default)]
struct State {
    migrations: Vec<Value>,
    asked: Vec<Asked>,
    /// Statuses posted, in order.
    statuses: Vec<Value>,
    /// Answers `503` with this `Retry-After` to so many requests to come.
    busy: Option<(u32, u32)>,
}

/// The server.
pub struct FakeSeedServer {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    addr: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl FakeSeedServer {
    /// Starts it with nothing to hand out.
    pub fn start() -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        socket.set_nonblocking(true).expect("a socket can be made non-blocking");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let (state, stop) = (Arc::<Mutex<State>>::default(), Arc::<AtomicBool>::default());
        let (inner, stopped) = (state.clone(), stop.clone());
        let listener = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                match socket.accept() {
                    Ok((stream, _)) => {
                        let inner = inner.clone();
                        std::thread::spawn(move || serve(&inner, stream));
                    }
                    Err(_) => std::thread::sleep(Duration::from_millis(2)),
                }
            }
        });
        Self { state, stop, addr, listener: Some(listener) }
    }

    /// Its address.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Its address.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Hands out one more migration, in the seed's form.
    pub fn add(&self, timestamp: i64, name: &str, up: &[&str], down: &[&str]) {
        let migration = json!({ "timestamp": timestamp, "migrationName": name, "upQueries": up, "downQueries": down, "clientApplied": false });
        self.lock().migrations.push(migration);
    }

    /// Hands out exactly these.
    pub fn set(&self, migrations: Vec<Value>) {
        self.lock().migrations = migrations;
    }

    /// Answers `503` and `Retry-After` to the next `times` requests.
    pub fn busy(&self, times: u32, retry_after_s: u32) {
        self.lock().busy = Some((times, retry_after_s));
    }

    /// What was asked so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.lock().asked.clone()
    }

    /// The statuses posted so far.
    pub fn statuses(&self) -> Vec<Value> {
        self.lock().statuses.clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for FakeSeedServer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn serve(state: &Mutex<State>, mut stream: TcpStream) {
    let _ = stream.set_nonblocking(false);
    let _ = stream.set_read_timeout(Some(Duration::from_secs(30)));
    while let Ok(request) = Message::read(&mut stream, false) {
        let (method, path) = request.target();
        let what = format!("{method} {}", path.split('?').next().unwrap_or_default());
        let body: Value = serde_json::from_slice(&request.body).unwrap_or(Value::Null);
        let (status, extra, answer) = answer(&mut state.lock().unwrap_or_else(PoisonError::into_inner), &what, body);
        let text = answer.to_string();
        let head = format!("HTTP/1.1 {status}\r\ncontent-type: application/json\r\n{extra}content-length: {}\r\n\r\n{text}", text.len());
        if stream.write_all(head.as_bytes()).is_err() {
            return;
        }
    }
}

fn answer(state: &mut State, what: &str, body: Value) -> (&'static str, String, Value) {
    state.asked.push(Asked { at: Instant::now(), what: what.to_owned(), body: body.clone() });
    if let Some((times @ 1.., wait_s)) = state.busy {
        state.busy = Some((times - 1, wait_s));
        return ("503 Service Unavailable", format!("retry-after: {wait_s}\r\n"), json!({ "error": "busy" }));
    }
    match what {
        "GET /api/migrations/pending" => ("200 OK", String::new(), Value::Array(state.migrations.clone())),
        "POST /api/migrations/status" if body["migrationName"].is_string() => {
            // The seed's one flag for all: what was applied anywhere is handed out no more.
            if body["applied"] == true {
                state.migrations.retain(|m| m["migrationName"] != body["migrationName"]);
            }
            state.statuses.push(body);
            ("200 OK", String::new(), json!({ "success": true }))
        }
        "POST /api/migrations/status" => ("400 Bad Request", String::new(), json!({ "error": "Migration name is required" })),
        // Express answers what it does not know with a page.
        _ => ("404 Not Found", String::new(), json!("Cannot do that")),
    }
}
