//! What a stranger, a mistake and a half-sent request get.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};
use whimbrel_server::secrets::Scope;

use crate::support::{Stage, within};

#[tokio::test]
async fn a_mistake_is_answered_with_what_to_do() {
    let stage = Stage::new().await;
    assert_eq!(stage.get("/healthz", "").await.body, b"ok");
    assert_eq!(stage.get("/readyz", "").await.status, 200);
    let lost = stage.get("/api/pol", "").await;
    lost.problem(404, "no-such-endpoint");
    assert!(lost.json()["remedy"].as_str().unwrap().contains("GET /api/poll"));
    let wrong = stage.ask("DELETE", "/api/poll", "", b"").await;
    wrong.problem(405, "wrong-method");
    assert!(wrong.headers["allow"].contains("GET"));
    let patch = stage.ask("PATCH", "/api/migrations", "", b"").await;
    patch.problem(405, "wrong-method");
    stage.get("/api/clients", "").await.problem(401, "no-api-key");
    stage.get("/api/clients", "whk_guess").await.problem(401, "unknown-api-key");
    stage.get("/api/poll", "whd_guess").await.problem(401, "unknown-token");
    let early = stage.token("notes", 1).await;
    let mixed_up = stage.get("/api/poll", &early).await;
    assert!(mixed_up.problem(401, "unknown-token").contains("an enrolment token"));
    let key = stage.key(Scope::Read).await;
    for path in [
        "/api/clients?limit=0",
        "/api/clients?limit=501",
        "/api/clients?after=x",
        "/api/clients?outdated=maybe",
        "/api/clients/x",
        "/api/clients/%ff",
        "/api/migrations",
        "/api/migrations?app=A/B",
        "/api/audit?before=x",
    ] {
        stage.get(path, &key).await.problem(400, "bad-input");
    }
    stage.get("/api/migrations?app=nowhere", &key).await.problem(404, "no-such-app");
    let enroll = stage.ask("POST", "/api/enroll", "", b"token=x").await;
    assert!(enroll.problem(400, "bad-body").contains("line 1 column"));
}

#[tokio::test]
async fn a_body_that_is_too_large_is_refused_with_its_limit() {
    let stage = Stage::new().await;
    let large = vec![b' '; 2 * 1024 * 1024];
    let refused = stage.ask("POST", "/api/enroll", "", &large).await;
    assert!(refused.problem(413, "too-large").contains("16384"));
    let device = stage.device("notes").await;
    let headers = format!("Authorization: Bearer {device}\r\n");
    let refused = stage.ask("POST", "/api/migrations/status", &headers, &large).await;
    assert!(refused.problem(413, "too-large").contains("1048576"));
}

#[tokio::test]
async fn three_hundred_half_sent_requests_are_gone_in_fifteen_seconds_and_hold_up_nobody() {
    const EACH: usize = 100;
    let stage = Stage::new().await;
    let began = Instant::now();
    let mut open = JoinSet::new();
    let kinds: [&[u8]; 3] = [
        b"",
        b"GET /healthz HTTP/1.1\r\nHost: test\r\nX-Slow: ",
        b"POST /api/enroll HTTP/1.1\r\nHost: test\r\nContent-Length: 100\r\n\r\n{\"token\":",
    ];
    for sent in kinds.into_iter().cycle().take(kinds.len() * EACH) {
        let mut stream = TcpStream::connect(stage.addr).await.unwrap();
        stream.write_all(sent).await.unwrap();
        open.spawn(async move {
            let mut rest = Vec::new();
            // Closed or reset: both are gone.
            let _ = stream.read_to_end(&mut rest).await;
            rest
        });
    }
    let mut served = 0;
    let (mut closed, mut told) = (0, 0);
    while !open.is_empty() {
        let asked = Instant::now();
        assert_eq!(stage.get("/readyz", "").await.status, 200);
        assert!(asked.elapsed() < Duration::from_secs(1), "held up for {:?}", asked.elapsed());
        served += 1;
        let rest = within(open.join_next()).await.unwrap().unwrap();
        closed += 1;
        told += usize::from(rest.starts_with(b"HTTP/1.1 408"));
    }
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    assert_eq!((closed, served), (kinds.len() * EACH, kinds.len() * EACH));
    assert!(told >= EACH, "{told} of {EACH} unfinished bodies were told so");
}

#[tokio::test]
async fn a_stopping_server_finishes_what_it_began_and_takes_nothing_new() {
    let stage = Stage::new().await;
    let addr = stage.addr;
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let head = b"POST /api/enroll HTTP/1.1\r\nHost: test\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.unwrap();
    let mut go_on = [0; 25];
    within(stream.read_exact(&mut go_on)).await.unwrap();
    assert!(go_on.starts_with(b"HTTP/1.1 100"), "it has begun to read the body");
    let stop = tokio::spawn(stage.stop());
    // Refused connections show that it knows.
    within(async { while TcpStream::connect(addr).await.is_ok() {} }).await;
    stream.write_all(b"{\"token\":1}").await.unwrap();
    let mut answer = Vec::new();
    within(stream.read_to_end(&mut answer)).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", String::from_utf8_lossy(&answer));
    within(stop).await.unwrap();
}
