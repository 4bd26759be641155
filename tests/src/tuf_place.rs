//! A place that serves a [`TufRepository`] over HTTP, and misbehaves when it is told to.

use std::{
    collections::BTreeMap,
    io::Write,
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{http::Message, tuf_repository::TufRepository};

/// Longest that a client may keep a request to itself.
const PATIENCE: Duration = Duration::from_secs(20);

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Misdeed {
    /// This status, and nothing else.
    Status(u16),
    /// These bytes in place of the file's.
    Other(Vec<u8>),
    /// Bytes without an end.
    Endless,
}

struct State {
    files: BTreeMap<String, Vec<u8>>,
    asked: Vec<String>,
    misdeeds: BTreeMap<String, Misdeed>,
    /// Most bytes that an endless answer got rid of.
    endless: u64,
}

/// What answers requests that are not for a file: a body, or none where it is not there.
pub type Api = Arc<dyn Fn(&Message) -> Option<Vec<u8>> + Send + Sync>;

/// The place. Metadata and targets lie below [`TufPlace::url`].
pub struct TufPlace {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
    addr: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl TufPlace {
    /// Serves what a repository has now.
    pub fn start(repository: &TufRepository) -> Self {
        Self::with_api(repository, Arc::new(|_| None))
    }

    /// As [`TufPlace::start`], and answers what is below `/api/`. The repository lies below `/repository/APP/` as well.
    pub fn with_api(repository: &TufRepository, api: Api) -> Self {
        let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = socket.local_addr().expect("a bound socket has an address");
        let state = Arc::new(Mutex::new(State { files: repository.files.clone(), asked: Vec::new(), misdeeds: BTreeMap::new(), endless: 0 }));
        let stop = Arc::<AtomicBool>::default();
        let (inner, stopped) = (state.clone(), stop.clone());
        let listener = std::thread::spawn(move || {
            while let Ok((stream, _)) = socket.accept() {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let (inner, api) = (inner.clone(), api.clone());
                std::thread::spawn(move || {
                    // A client that went away is its own matter.
                    let _ = serve(&inner, &api, stream);
                });
            }
        });
        Self { state, stop, addr, listener: Some(listener) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Serves what a repository has now, and forgets what was asked.
    pub fn serve(&self, repository: &TufRepository) {
        let mut state = self.state();
        state.files = repository.files.clone();
        state.asked.clear();
    }

    /// Misbehaves from now on when this file is asked for.
    pub fn misbehave(&self, name: &str, misdeed: Misdeed) {
        self.state().misdeeds.insert(name.to_owned(), misdeed);
    }

    /// Behaves.
    pub fn behave(&self) {
        self.state().misdeeds.clear();
    }

    /// What was asked for, in order.
    pub fn asked(&self) -> Vec<String> {
        self.state().asked.clone()
    }

    /// Most bytes that an endless answer got rid of.
    pub fn endless_bytes(&self) -> u64 {
        self.state().endless
    }
}

impl Drop for TufPlace {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // It waits for somebody to come.
        let _ = TcpStream::connect(self.addr);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(state: &Mutex<State>, api: &Api, mut stream: TcpStream) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = Message::read(&mut stream, false)?;
    let path = request.first.split(' ').nth(1).unwrap_or_default().trim_start_matches('/').to_owned();
    if path.starts_with("api/") {
        return match api(&request) {
            Some(body) => answer(&mut stream, 200, &body),
            None => answer(&mut stream, 404, b""),
        };
    }
    // `repository/APP/FILE` is FILE here: a place has one repository.
    let path = match path.strip_prefix("repository/").and_then(|rest| rest.split_once('/')) {
        Some((_, file)) => file.to_owned(),
        None => path,
    };
    let (misdeed, file) = {
        let mut state = lock(state);
        state.asked.push(path.clone());
        // Targets lie in their own folder of the repository, and right at the address that a client is given for them.
        let file = state.files.get(&path).or_else(|| state.files.get(&format!("targets/{path}"))).cloned();
        (state.misdeeds.get(&path).cloned(), file)
    };
    match (misdeed, file) {
        (Some(Misdeed::Status(status)), _) => answer(&mut stream, status, b""),
        (Some(Misdeed::Other(bytes)), _) => answer(&mut stream, 200, &bytes),
        (Some(Misdeed::Endless), _) => {
            stream.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n")?;
            loop {
                // A gibibyte would be enough to be seen.
                let sent = {
                    let mut state = lock(state);
                    state.endless += 4096;
                    state.endless
                };
                if sent > 1 << 30 {
                    return Ok(());
                }
                stream.write_all(&[b' '; 4096])?;
            }
        }
        (None, Some(bytes)) => answer(&mut stream, 200, &bytes),
        (None, None) => answer(&mut stream, 404, b""),
    }
}

fn answer(stream: &mut TcpStream, status: u16, body: &[u8]) -> std::io::Result<()> {
    write!(stream, "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len())?;
    stream.write_all(body)
}
