//! The wire between a daemon and its server: a proxy on loopback that can be cut, silenced, or made to lie.

use std::{
    io::{ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::http::Message;

/// How often the proxy's threads look whether the wire changed.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Changes an answer's bytes on the way. Gets the request and the answer; what it returns is sent, then the connection
/// is closed.
pub type Tamper = Arc<dyn Fn(&Message, &Message) -> Vec<u8> + Send + Sync>;

/// What the wire does.
#[derive(Clone)]
pub enum Mode {
    /// Carries everything.
    Pass,
    /// Nobody listens: connecting is refused, and open connections are reset.
    Refuse,
    /// Connections are taken and reset at once.
    Reset,
    /// Connections are taken and nothing ever arrives.
    BlackHole,
    /// Requests arrive; of each answer come so many bytes, then the connection is half closed.
    HalfClose(usize),
    /// Requests arrive, and answers are changed.
    Tamper(Tamper),
    /// Requests whose first line contains this never arrive: their connection is reset. The others pass.
    Swallow(&'static str),
}

struct Shared {
    mode: Mutex<(Mode, u64)>,
    stop: AtomicBool,
    upstream: Mutex<SocketAddr>,
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

/// The proxy.
pub struct Wire {
    shared: Arc<Shared>,
    addr: SocketAddr,
    listener: Option<JoinHandle<()>>,
}

impl Wire {
    /// A whole wire to `upstream`.
    pub fn to(upstream: SocketAddr) -> Self {
        Self::inside(upstream, None)
    }

    /// As [`Wire::to`], in a network namespace.
    pub fn inside(upstream: SocketAddr, namespace: Option<String>) -> Self {
        let shared = Arc::new(Shared {
            mode: Mutex::new((Mode::Pass, 0)),
            stop: AtomicBool::new(false),
            upstream: Mutex::new(upstream),
            connections: AtomicUsize::new(0),
            requests: Mutex::default(),
        });
        let (told, hear) = std::sync::mpsc::channel();
        let inner = shared.clone();
        let listener = std::thread::spawn(move || {
            // Threads that this one starts inherit its namespace.
            if let Some(namespace) = namespace {
                crate::net::enter(&namespace);
            }
            let socket = TcpListener::bind("127.0.0.1:0").expect("a free port");
            let addr = socket.local_addr().expect("a bound socket has an address");
            told.send(addr).expect("somebody waits");
            listen(&inner, addr, socket);
        });
        let addr = hear.recv().expect("the listener starts");
        Self { shared, addr, listener: Some(listener) }
    }

    /// Where daemons connect.
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where daemons connect.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Changes what it does, for open connections too.
    pub fn set(&self, mode: Mode) {
        let mut current = self.shared.mode();
        *current = (mode, current.1 + 1);
    }

    /// Cuts it: connections are refused.
    pub fn cut(&self) {
        self.set(Mode::Refuse);
    }

    /// Mends it.
    pub fn mend(&self) {
        self.set(Mode::Pass);
    }

    /// Lies from now on: `change` gets each request and its answer, and gives the bytes to send instead.
    pub fn tamper(&self, change: impl Fn(&Message, &Message) -> Vec<u8> + Send + Sync + 'static) {
        self.set(Mode::Tamper(Arc::new(change)));
    }

    /// Leads to another server from now on.
    pub fn lead_to(&self, upstream: SocketAddr) {
        *self.shared.upstream.lock().unwrap_or_else(PoisonError::into_inner) = upstream;
    }

    /// Connections taken so far.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// First lines of the requests seen while it tampered.
    pub fn requests(&self) -> Vec<String> {
        self.shared.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(listener) = self.listener.take() {
            let _ = listener.join();
        }
    }
}

impl Shared {
    fn mode(&self) -> std::sync::MutexGuard<'_, (Mode, u64)> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the wire is still as it was at `generation`.
    fn unchanged(&self, generation: u64) -> bool {
        self.mode().1 == generation && !self.stop.load(Ordering::Relaxed)
    }

    fn connect(&self) -> std::io::Result<TcpStream> {
        let upstream = *self.upstream.lock().unwrap_or_else(PoisonError::into_inner);
        TcpStream::connect_timeout(&upstream, Duration::from_secs(5))
    }
}

fn listen(shared: &Arc<Shared>, addr: SocketAddr, first: TcpListener) {
    let mut socket = Some(first);
    while !shared.stop.load(Ordering::Relaxed) {
        let refuse = matches!(shared.mode().0, Mode::Refuse);
        match (&socket, refuse) {
            (_, true) => socket = None,
            (None, false) => socket = TcpListener::bind(addr).ok(),
            (Some(listener), false) => {
                let _ = listener.set_nonblocking(true);
                match listener.accept() {
                    Ok((stream, _)) => {
                        shared.connections.fetch_add(1, Ordering::Relaxed);
                        let shared = shared.clone();
                        std::thread::spawn(move || carry(&shared, stream));
                        continue;
                    }
                    Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                    Err(_) => socket = None,
                }
            }
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn carry(shared: &Arc<Shared>, client: TcpStream) {
    let (mode, generation) = shared.mode().clone();
    let _ = client.set_nonblocking(false);
    let _ = client.set_nodelay(true);
    let _ = client.set_read_timeout(Some(LOOK_EVERY));
    match mode {
        Mode::Refuse | Mode::Reset => reset(&client),
        Mode::BlackHole => {
            hold(shared, &client, generation);
            reset(&client);
        }
        Mode::Pass => pass(shared, client, generation, None),
        Mode::HalfClose(bytes) => pass(shared, client, generation, Some(bytes)),
        Mode::Tamper(change) => {
            let _ = tamper(shared, client, "", &change);
        }
        Mode::Swallow(which) => {
            let as_it_is: Tamper = Arc::new(|_, answer| answer.to_bytes());
            let _ = tamper(shared, client, which, &as_it_is);
        }
    }
}

/// Both ways at once, until an end or a change of the wire.
fn pass(shared: &Arc<Shared>, client: TcpStream, generation: u64, most: Option<usize>) {
    let Ok(server) = shared.connect() else { return reset(&client) };
    let _ = server.set_nodelay(true);
    let _ = server.set_read_timeout(Some(LOOK_EVERY));
    let (Ok(client_2), Ok(server_2)) = (client.try_clone(), server.try_clone()) else { return };
    let inner = shared.clone();
    let up = std::thread::spawn(move || pump(&inner, client_2, server_2, generation, None));
    pump(shared, server, client, generation, most);
    let _ = up.join();
}

fn pump(shared: &Shared, mut from: TcpStream, mut to: TcpStream, generation: u64, most: Option<usize>) {
    let mut left = most.unwrap_or(usize::MAX);
    let mut buffer = [0; 32 * 1024];
    loop {
        if !shared.unchanged(generation) {
            // A cut wire says nothing more: what was under way is lost, and both sides find out the hard way.
            let silent = matches!(shared.mode().0, Mode::BlackHole);
            let now = shared.mode().1;
            if silent {
                hold(shared, &from, now);
            }
            reset(&from);
            reset(&to);
            return;
        }
        match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(n) => {
                let n = n.min(left);
                if to.write_all(&buffer[..n]).is_err() {
                    return;
                }
                left -= n;
                if left == 0 {
                    let _ = to.shutdown(Shutdown::Write);
                    hold(shared, &from, generation);
                    return;
                }
            }
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => {
                reset(&to);
                return;
            }
        }
    }
}

/// Swallows what comes, until the peer goes or the wire changes.
fn hold(shared: &Shared, mut stream: &TcpStream, generation: u64) {
    let mut buffer = [0; 4096];
    while shared.unchanged(generation) {
        match stream.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(_) => return,
        }
    }
}

fn tamper(shared: &Shared, mut client: TcpStream, swallow: &str, change: &Tamper) -> std::io::Result<()> {
    client.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = Message::read(&mut client, false)?;
    shared.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.first.clone());
    if !swallow.is_empty() && request.first.contains(swallow) {
        reset(&client);
        return Ok(());
    }
    let mut server = shared.connect()?;
    server.set_read_timeout(Some(Duration::from_secs(20)))?;
    let mut forwarded = request.clone();
    forwarded.headers.insert("connection".to_owned(), "close".to_owned());
    server.write_all(&forwarded.to_bytes())?;
    let mut answer = Message::read(&mut server, true)?;
    answer.headers.insert("connection".to_owned(), "close".to_owned());
    client.write_all(&change(&request, &answer))?;
    client.shutdown(Shutdown::Write)
}

/// Closes a connection so that the peer sees a reset, not an end.
fn reset(stream: &TcpStream) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    // SAFETY: the option's value is as long as it is said to be.
    unsafe {
        let length = size_of::<libc::linger>() as libc::socklen_t;
        libc::setsockopt(stream.as_raw_fd(), libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), length);
        // A shutdown would send an orderly end first; connecting to nowhere drops the connection with a reset.
        let nowhere: libc::sockaddr = libc::sockaddr { sa_family: libc::AF_UNSPEC as u16, sa_data: [0; 14] };
        libc::connect(stream.as_raw_fd(), &raw const nowhere, size_of::<libc::sockaddr>() as libc::socklen_t);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                std::thread::spawn(move || {
                    let mut buffer = [0; 100];
                    while let Ok(n @ 1..) = stream.read(&mut buffer) {
                        let _ = stream.write_all(&buffer[..n]);
                    }
                });
            }
        });
        addr
    }

    fn talk(stream: &mut TcpStream) -> std::io::Result<usize> {
        stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.write_all(b"hello")?;
        stream.read(&mut [0; 100])
    }

    #[test]
    fn a_wire_carries_cuts_open_connections_refuses_new_ones_and_mends() {
        let wire = Wire::to(echo());
        let mut stream = TcpStream::connect(wire.addr()).unwrap();
        assert_eq!(talk(&mut stream).unwrap(), 5);
        wire.cut();
        crate::until(Duration::from_secs(5), "the open connection breaks", || talk(&mut stream).is_err().then_some(()));
        crate::until(Duration::from_secs(5), "connecting is refused", || TcpStream::connect(wire.addr()).is_err().then_some(()));
        wire.mend();
        let mut stream = crate::until(Duration::from_secs(5), "connecting succeeds", || TcpStream::connect(wire.addr()).ok());
        assert_eq!(talk(&mut stream).unwrap(), 5);
        wire.set(Mode::BlackHole);
        let mut stream = TcpStream::connect(wire.addr()).unwrap();
        assert!(matches!(talk(&mut stream).unwrap_err().kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut));
        wire.set(Mode::Reset);
        let mut stream = TcpStream::connect(wire.addr()).unwrap();
        crate::until(Duration::from_secs(5), "it is reset", || match talk(&mut stream) {
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => Some(()),
            _ => None,
        });
    }
}
