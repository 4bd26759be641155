//! A daemon for tests of the command line: it listens at a socket and says what it is told to say.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
};

use super::protocol::{CONTROL_PROTOCOL, Reply, Request};

/// Answers every request with what `answer` says, until the process ends. The connection closes after the replies to a
/// request that `answer` has none for.
pub(crate) fn serve(socket: &Path, answer: impl Fn(Request) -> Vec<Reply> + Send + Sync + 'static) -> std::thread::JoinHandle<()> {
    let listener = UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while let Some(Ok(line)) = lines.next() {
                let replies = match serde_json::from_str(&line).unwrap() {
                    Request::Hello { .. } => vec![hello()],
                    request => answer(request),
                };
                if replies.is_empty() || replies.iter().any(|reply| !say(&mut stream, reply)) {
                    break;
                }
            }
        }
    })
}

/// Takes the greeting and answers it.
pub(crate) fn greet(stream: &mut UnixStream) {
    let mut line = String::new();
    BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
    assert!(say(stream, &hello()), "the greeting was not heard");
}

fn hello() -> Reply {
    Reply::Hello { protocol: CONTROL_PROTOCOL, version: "0.1.0".to_owned(), pid: 4711 }
}

fn say(stream: &mut UnixStream, reply: &Reply) -> bool {
    writeln!(stream, "{}", serde_json::to_string(reply).unwrap()).is_ok()
}
