//! The command line's end of the control socket: blocking, one connection a command. Why the daemon cannot be reached is
//! told apart, because each reason has its own remedy.

use std::{
    io::{self, Read, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use whimbrel_shared::remedy::{Remedy, here, wait};

use super::protocol::{CONTROL_PROTOCOL, MAX_LINE_BYTES, Reply, Request};

/// How long an answer may take. The longest is a plan over thousands of databases.
const ANSWER: Duration = Duration::from_secs(120);
/// How long the greeting may take: a daemon that works still greets at once.
const GREETING: Duration = Duration::from_secs(10);

/// Why the daemon did not answer, or what it answered instead.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// There is no socket.
    #[error("the daemon is not running (there is no socket at {socket})")]
    NotRunning {
        /// Where it would be.
        socket: PathBuf,
    },
    /// There is a socket that nobody listens at.
    #[error("the daemon is not running any more (its socket {socket} is stale)")]
    Stale {
        /// Which.
        socket: PathBuf,
    },
    /// This user may not connect.
    #[error("this user may not talk to the daemon at {socket}")]
    NotPermitted {
        /// Which.
        socket: PathBuf,
    },
    /// Something else went wrong while connecting.
    #[error("the daemon's socket {socket} cannot be used: {source}")]
    Unreachable {
        /// Which.
        socket: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It went away while we listened.
    #[error("the daemon went away before it answered")]
    Gone,
    /// It said nothing for too long.
    #[error("the daemon has not answered for {waited_s} s")]
    Silent {
        /// How long we listened, in seconds.
        waited_s: u64,
    },
    /// It answered what we do not understand.
    #[error("the daemon's answer is not understood: {detail}")]
    Garbled {
        /// What was wrong.
        detail: String,
    },
    /// It said no.
    #[error("{message}")]
    Refused {
        /// Why.
        message: String,
        /// What to do.
        remedy: Remedy,
    },
    /// It said that this user may not.
    #[error("{message}")]
    Forbidden {
        /// Who may not what.
        message: String,
        /// What to do.
        remedy: Remedy,
    },
    /// This platform has no control socket.
    #[error("the control socket exists on Unix only")]
    Unsupported,
}

impl ClientError {
    /// What can be done.
    pub fn remedy(&self) -> Remedy {
        match self {
            Self::NotRunning { socket } | Self::Stale { socket } => match system_unit(socket) {
                Some(unit) => here(format!("start it: `systemctl start {unit}`")),
                None => here("start it: `systemctl --user start whimbrel`, or `whimbrel run`"),
            },
            Self::NotPermitted { socket } => {
                here(format!("run this as the daemon's user ({}), or with its configuration: --config FILE", owner_hint(socket)))
            }
            Self::Unreachable { .. } => here("look at the daemon's log: `journalctl --user -u whimbrel`"),
            Self::Gone => wait("it was stopped or restarted; what it had accepted goes on when it is back"),
            Self::Silent { .. } => here("look at the daemon's log: `journalctl --user -u whimbrel`; restart it if it hangs"),
            Self::Garbled { .. } => here("use the command line of the daemon's version (`whimbrel --version`, `whimbrel status`)"),
            Self::Refused { remedy, .. } | Self::Forbidden { remedy, .. } => remedy.clone(),
            Self::Unsupported => here("use `whimbrel run --once`"),
        }
    }
}

/// What a wait for a line came to.
#[derive(Debug)]
pub enum Heard {
    /// A reply.
    Reply(Reply),
    /// The deadline came first; nothing is lost.
    Nothing,
    /// The daemon closed the connection.
    End,
}

#[cfg(unix)]
type Stream = std::os::unix::net::UnixStream;
#[cfg(not(unix))]
type Stream = std::net::TcpStream;

/// A connection to the daemon, greeted.
#[derive(Debug)]
pub struct Client {
    stream: Stream,
    /// What was read and not yet taken; the beginning of a line outlives a deadline.
    heard: Vec<u8>,
    /// How much of it was searched for the end of a line: a long one arrives in many pieces.
    searched: usize,
    /// Version of the daemon.
    pub daemon_version: String,
    /// Its process id.
    pub pid: u32,
}

impl Client {
    /// Connects and greets.
    pub fn connect(socket: &Path) -> Result<Self, ClientError> {
        let mut client = Self { stream: open(socket)?, heard: Vec::new(), searched: 0, daemon_version: String::new(), pid: 0 };
        client.say(&Request::Hello { protocol: CONTROL_PROTOCOL })?;
        match client.answer_within(GREETING)? {
            Reply::Hello { version, pid, .. } => (client.daemon_version, client.pid) = (version, pid),
            other => return Err(unexpected(&other)),
        }
        Ok(client)
    }

    /// Asks, and takes the one answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply, ClientError> {
        self.say(request)?;
        self.answer_within(ANSWER)
    }

    /// Sends a request whose replies are taken with [`Client::next`].
    pub fn say(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Garbled { detail: e.to_string() })?;
        line.push(b'\n');
        self.stream.write_all(&line).map_err(|_| ClientError::Gone)
    }

    /// The next reply, or nothing if `deadline` comes first. `Reply::Refused` and `Reply::NotPermitted` are errors here.
    pub fn next(&mut self, deadline: Option<Instant>) -> Result<Heard, ClientError> {
        loop {
            if let Some(end) = self.heard[self.searched..].iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.heard.drain(..=self.searched + end).collect();
                self.searched = 0;
                return match serde_json::from_slice(&line) {
                    Ok(Reply::Refused { message, remedy }) => Err(ClientError::Refused { message, remedy }),
                    Ok(Reply::NotPermitted { message, remedy }) => Err(ClientError::Forbidden { message, remedy }),
                    Ok(reply) => Ok(Heard::Reply(reply)),
                    Err(e) => Err(ClientError::Garbled { detail: e.to_string() }),
                };
            }
            self.searched = self.heard.len();
            if self.heard.len() > MAX_LINE_BYTES {
                return Err(ClientError::Garbled { detail: format!("a line of more than {MAX_LINE_BYTES} bytes") });
            }
            let left = match deadline.map(|d| d.saturating_duration_since(Instant::now())) {
                Some(Duration::ZERO) => return Ok(Heard::Nothing),
                left => left,
            };
            self.stream.set_read_timeout(left).map_err(|_| ClientError::Gone)?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Heard::End),
                Ok(n) => self.heard.extend_from_slice(&chunk[..n]),
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted) => {}
                Err(_) => return Ok(Heard::End),
            }
        }
    }

    fn answer_within(&mut self, limit: Duration) -> Result<Reply, ClientError> {
        match self.next(Some(Instant::now() + limit))? {
            Heard::Reply(reply) => Ok(reply),
            Heard::Nothing => Err(ClientError::Silent { waited_s: limit.as_secs() }),
            Heard::End => Err(ClientError::Gone),
        }
    }
}

/// The error for an answer to another question.
pub fn unexpected(reply: &Reply) -> ClientError {
    let json = serde_json::to_value(reply).unwrap_or_default();
    ClientError::Garbled { detail: format!("a reply of kind {} was not asked for", json["reply"]) }
}

#[cfg(unix)]
fn open(socket: &Path) -> Result<Stream, ClientError> {
    Stream::connect(socket).map_err(|source| {
        let socket = socket.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => ClientError::NotRunning { socket },
            io::ErrorKind::ConnectionRefused => ClientError::Stale { socket },
            io::ErrorKind::PermissionDenied => ClientError::NotPermitted { socket },
            _ => ClientError::Unreachable { socket, source },
        }
    })
}

#[cfg(not(unix))]
fn open(_socket: &Path) -> Result<Stream, ClientError> {
    Err(ClientError::Unsupported)
}

/// Who owns the socket or, where we may not even see it, the nearest directory that we can see.
#[cfg(unix)]
fn owner_hint(socket: &Path) -> String {
    use std::os::unix::fs::MetadataExt;
    socket.ancestors().find_map(|p| p.metadata().ok()).map_or_else(|| "see its unit".to_owned(), |m| format!("user id {}", m.uid()))
}

#[cfg(not(unix))]
fn owner_hint(_socket: &Path) -> String {
    "see its unit".to_owned()
}

/// The unit whose socket it is, where that is the system's.
fn system_unit(socket: &Path) -> Option<String> {
    let name = socket.strip_prefix("/run/whimbrel").ok()?.parent()?.to_str()?;
    Some(if name == "whimbrel" { name.to_owned() } else { format!("whimbrel@{name}") })
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::control::fake;

    #[test]
    fn no_socket_and_a_stale_socket_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        assert!(matches!(Client::connect(&socket), Err(ClientError::NotRunning { .. })));
        drop(UnixListener::bind(&socket).unwrap());
        assert!(matches!(Client::connect(&socket), Err(ClientError::Stale { .. })));
    }

    #[test]
    fn a_daemon_that_is_not_there_is_started_as_its_socket_says() {
        let check = |socket: &str, unit: &str| {
            let remedy = ClientError::NotRunning { socket: socket.into() }.remedy();
            assert!(remedy.sentence().contains(&format!("`systemctl {unit}`")), "{socket}: {remedy:?}");
        };
        check("/run/whimbrel/notes/control.sock", "start whimbrel@notes");
        check("/run/whimbrel/whimbrel/control.sock", "start whimbrel");
        check("/home/ann/.local/state/whimbrel/control.sock", "--user start whimbrel");
    }

    #[test]
    fn a_reply_split_over_a_deadline_is_not_lost() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        let (go, wait_for_go) = std::sync::mpsc::channel();
        let daemon = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            fake::greet(&mut stream);
            stream.write_all(b"{\"reply\":").unwrap();
            wait_for_go.recv().unwrap();
            stream.write_all(b"\"done\"}\n").unwrap();
        });
        let mut client = Client::connect(&socket).unwrap();
        assert!(matches!(client.next(Some(Instant::now() + Duration::from_millis(20))), Ok(Heard::Nothing)));
        go.send(()).unwrap();
        assert!(matches!(client.next(None), Ok(Heard::Reply(Reply::Done))));
        assert!(matches!(client.next(None), Ok(Heard::End)));
        daemon.join().unwrap();
    }

    #[test]
    fn a_refusal_is_an_error_with_the_daemons_own_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("control.sock");
        fake::serve(&socket, |_| vec![Reply::Refused { message: "no such database".into(), remedy: here("look at `whimbrel status`") }]);
        let error = Client::connect(&socket).unwrap().ask(&Request::Status).unwrap_err();
        assert_eq!((error.to_string().as_str(), error.remedy()), ("no such database", here("look at `whimbrel status`")));
    }
}
