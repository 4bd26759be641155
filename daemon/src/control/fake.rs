//! A daemon for tests of the command line: it listens at a socket and says what it is told to say.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::Path,
    sync::Arc,
};

use super::protocol::{CONTROL_PROTOCOL, Reply, Request};

/// Answers every request with what `answer` says, each connection in a thread of its own, until the process ends. A request
/// that `answer` has no replies for closes its connection.
pub(crate) fn serve(socket: &Path, answer: impl Fn(Request) -> Vec<Reply> + Send + Sync + 'static) {
    let listener = UnixListener::bind(socket).unwrap();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (Ok(stream), answer) = (stream, answer.clone()) else { return };
            std::thread::spawn(move || talk(stream, &*answer));
        }
    });
}

fn talk(mut stream: UnixStream, answer: &dyn Fn(Request) -> Vec<Reply>) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
    while let Some(Ok(line)) = lines.next() {
        let replies = match serde_json::from_str(&line).unwrap() {
            Request::Hello { .. } => vec![hello()],
            request => answer(request),
        };
        if replies.is_empty() || replies.iter().any(|reply| !say(&mut stream, reply)) {
            return;
        }
    }
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
