//! Clients that send half a request and go silent.

use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use whimbrel_tests::{Server, http};

use crate::stage;

#[test]
fn of_300_half_sent_requests_none_lives_after_15_seconds_and_others_are_served() {
    let stage = stage();
    let server = Server::start(stage.path());
    let begun = Instant::now();
    let halves = ["GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow: ", "POST /api/enroll HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{", ""];
    let mut alive: Vec<(TcpStream, usize)> = (0..300)
        .map(|n| {
            let mut stream = TcpStream::connect(server.addr()).unwrap();
            let kind = n % halves.len();
            stream.write_all(halves[kind].as_bytes()).unwrap();
            stream.set_nonblocking(true).unwrap();
            (stream, kind)
        })
        .collect();
    let mut slowest = Duration::ZERO;
    // Not a moment longer: those that live then have failed.
    while begun.elapsed() < Duration::from_secs(15) && !alive.is_empty() {
        let asked = Instant::now();
        assert_eq!(http::ask(server.addr(), "GET", "/healthz", "", b"").unwrap().status(), 200);
        slowest = slowest.max(asked.elapsed());
        alive.retain_mut(|(stream, _)| match stream.read(&mut [0; 1024]) {
            Ok(0) => false,
            Ok(_) => true, // a word before it is closed
            Err(e) => e.kind() == ErrorKind::WouldBlock,
        });
        whimbrel_tests::wait::moment(Duration::from_millis(20));
    }
    let kinds: Vec<usize> = (0..halves.len()).map(|k| alive.iter().filter(|(_, kind)| *kind == k).count()).collect();
    eprintln!("half-open requests: all but {kinds:?} gone after {:.1?}; others served within {slowest:.1?}", begun.elapsed());
    assert!(alive.is_empty(), "still alive after 15 s, by kind (half a head, half a body, nothing): {kinds:?}");
    assert!(slowest < Duration::from_secs(1), "another client waited {slowest:?}");
}
