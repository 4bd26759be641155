//! Rows over HTTP: what a device is told, and databases that edit the same rows while their requests are cut, doubled and
//! lost, until all of them have what the server has.

mod database;
mod versions;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use serde_json::{Value as Json, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};
use whimbrel_server::secrets::Scope;
use whimbrel_shared::{
    change::{Cell, Change, Edit, MAX_PAGE_ROWS},
    hlc::Clock,
    ids::PushId,
    packed,
    protocol::{
        conflicts::ConflictsResponse,
        publish::PublishLink,
        pull::PullHead,
        push::{PushHead, PushResponse},
        sums::SumsResponse,
    },
    value::Value,
};

use self::database::{Database, Fault, Sent, Shape};
use crate::support::{Reply, Stage, client_id, link, state, within};

/// One table per strategy, with a key and two columns each. Where rows are merged, one key is one thing.
const STRATEGIES: [&str; 5] = ["merge", "keep-newest", "keep-oldest", "server-wins", "client-wins"];

static PLAIN: Shape = Shape { tables: 5, columns: |_| &[2, 3], global: 1, empty: || Value::Integer(0), migrate: |_, _| &[] };

pub(crate) fn tables() -> PublishLink {
    let made: Vec<Json> = (1..=5).map(|t| json!([t, format!("t{t}"), [[1, "id"], [2, "a"], [3, "b"]]])).collect();
    let synced = |(table, strategy): (u32, &&str)| {
        let mut settings = json!({ "table": table, "direction": "both", "conflict": strategy, "key": [[1, "binary"]] });
        settings["keys"] = if table == 1 { "global".into() } else { "renumber".into() };
        settings
    };
    let synced: Vec<Json> = (1..).zip(&STRATEGIES).map(synced).collect();
    let mut link = link(1, "0001 rows", None, "SELECT 1;");
    link.target.custom.columns = Some(serde_json::from_value(json!({ "made": made })).unwrap());
    link.target.custom.sync = serde_json::from_value(json!({ "tables": synced })).unwrap();
    link
}

async fn device(stage: &Stage, n: u8) -> String {
    let token = stage.device("notes").await;
    assert_eq!(stage.post("/api/state", &token, state(&[(n, 1)])).await.status, 200);
    token
}

/// A history: four databases and a few rows, so that they meet. Answers the rows that all of them end with.
async fn history(seed: u64, steps: usize) -> BTreeMap<(u32, String), String> {
    let stage = Stage::new().await;
    assert_eq!(stage.publish(vec![tables()]).await.status, 200);
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut databases = Vec::new();
    for n in 1..=4 {
        databases.push(Database::new(n, device(&stage, n).await, &PLAIN));
    }
    // Of each column of table 1 the latest write, and every value that was told to have lost.
    let mut latest: BTreeMap<(i64, u32), (Clock, String, i64)> = BTreeMap::new();
    let mut lost = BTreeSet::new();
    for step in 0..steps {
        let at = dice.usize(..4);
        let database = &mut databases[at];
        match dice.u8(..10) {
            0..=4 => {
                let (table, key, column) = (dice.u32(1..=5), dice.i64(1..4), dice.u32(2..=3));
                // Clocks that differ by minutes, and one that stands still.
                let wall_ms = 1_700_000_000_000 + if at == 0 { 0 } else { step as i64 * 1000 + at as i64 * 90_000 };
                let made = database.write(table, key, column, Value::Integer(step as i64 + 1), wall_ms);
                for column in made.into_iter().filter(|_| table == 1) {
                    let value = if column.0 == column.2 { step as i64 + 1 } else { 0 };
                    let mine = (database.newest, client_id(database.n), value);
                    let entry = latest.entry((key, column.0)).or_insert(mine.clone());
                    *entry = entry.clone().max(mine);
                }
            }
            5 => {
                let (table, key) = (dice.u32(2..=5), dice.i64(1..4));
                database.delete(table, key, 1_700_000_000_000 + step as i64 * 1000);
            }
            6..=7 => {
                let fault = [Fault::None, Fault::None, Fault::Doubled, Fault::Cut, Fault::AnswerLost][dice.usize(..5)];
                lost.extend(database.push(&stage, &mut dice, fault).await);
            }
            _ => {
                let fault = [Fault::None, Fault::AnswerLost][dice.usize(..2)];
                database.pull(&stage, fault).await;
            }
        }
    }
    // Up, and what has to be sent whole up again; then down.
    for _ in 0..4 {
        for database in &mut databases {
            while let Sent::Some(more) = database.push_all(&stage, &mut dice).await {
                lost.extend(more);
            }
            database.pull(&stage, Fault::None).await;
        }
    }
    let rows = databases[0].rows();
    for database in &databases {
        assert!(database.is_clean(), "seed {seed}: {database:?}");
        assert_eq!(database.rows(), rows, "seed {seed}, database {}", database.n);
        let asked = format!("/api/sync/sums?client_id={}&schema=1", client_id(database.n));
        let sums: SumsResponse = serde_json::from_slice(&stage.get(&asked, &database.token).await.body).unwrap();
        assert_eq!((sums.version, sums.tables), (database.cursor, database.sums()), "seed {seed}, database {}", database.n);
    }
    let mut fresh = Database::new(9, device(&stage, 9).await, &PLAIN);
    fresh.pull(&stage, Fault::None).await;
    assert_eq!(fresh.rows(), rows, "seed {seed}: a database that comes late");
    // The oracle of `merge`: the latest write of each column, whoever sent it when.
    for ((table, key), row) in &rows {
        if *table == 1 {
            let expected: Vec<String> = [2, 3].map(|c| format!("{c}={}", latest[&(key.parse().unwrap(), c)].2)).to_vec();
            assert_eq!(*row, expected.join(" "), "seed {seed}, key {key}");
        }
    }
    // Nothing that lost is lost.
    let key = stage.key(Scope::Read).await;
    let (mut kept, mut before) = (BTreeSet::new(), String::new());
    loop {
        let page = stage.get(&format!("/api/conflicts?app=notes&limit=500{before}"), &key).await;
        let page: ConflictsResponse = serde_json::from_slice(&page.body).unwrap();
        let columns = page.conflicts.iter().flat_map(|c| c.detail.columns.iter().map(|k| (c.detail.table, k.clone())));
        kept.extend(columns.filter_map(|(table, column)| column.arrived.map(|v| (table, column.column, v))));
        let Some(next) = page.next else { break };
        before = format!("&before={next}");
    }
    let gone: Vec<_> = lost.difference(&kept).collect();
    assert!(gone.is_empty(), "seed {seed}: {gone:?} lost and are kept nowhere");
    rows
}

#[tokio::test]
async fn whatever_is_cut_doubled_or_lost_all_databases_end_with_the_same_rows() {
    let seeds = if std::env::var_os("WHIMBREL_NIGHT").is_some() { 500 } else { 12 };
    for seed in 0..seeds {
        history(seed, 120).await;
    }
}

#[tokio::test]
async fn the_same_seed_ends_with_the_same_rows() {
    let (one, again, other) = (history(77, 150).await, history(77, 150).await, history(78, 150).await);
    assert_eq!(one, again);
    assert_ne!(one, other);
}

#[tokio::test]
async fn what_is_wrong_with_a_push_or_a_pull_is_told_with_a_remedy() {
    let stage = Stage::new().await;
    let token = device(&stage, 1).await;
    let head = json!({ "push_id": client_id(200), "client_id": client_id(1), "epoch": 1, "order": 1, "schema": 1 });
    let push = |changes: Json| {
        let mut body = head.clone();
        body["changes"] = changes;
        body
    };
    let one = json!([{ "table": 1, "key": [7], "edit": { "present": { "cells": [[2, "a", 0, 0], [3, null, 0, 0]] } } }]);
    stage.post("/api/sync/push", &token, push(one.clone())).await.problem(409, "schema-ahead");
    assert_eq!(stage.publish(vec![tables()]).await.status, 200);
    stage.post("/api/sync/push", "", push(one.clone())).await.problem(401, "no-device-token");
    stage.post("/api/sync/push", &token, push(json!([]))).await.problem(400, "bad-input");
    stage.post("/api/sync/push", &token, push(json!([{ "table": 1 }]))).await.problem(400, "bad-body");
    stage.post("/api/sync/push", &token, push(json!([one[0], one[0]]))).await.problem(400, "bad-input");
    let who = format!("Authorization: Bearer {token}\r\n");
    stage.ask("POST", "/api/sync/push", &format!("{who}Content-Type: text/csv\r\n"), b"1,2").await.problem(415, "unknown-form");
    let packed_form = format!("{who}Content-Type: {}\r\n", packed::CONTENT_TYPE);
    stage.ask("POST", "/api/sync/push", &packed_form, b"whr1\0").await.problem(400, "bad-body");
    let accepted = stage.post("/api/sync/push", &token, push(one)).await;
    assert_eq!((accepted.status, accepted.json()["first"].as_u64()), (200, Some(1)), "{accepted:?}");
    let impossible = json!([{ "table": 9, "key": [7], "edit": { "present": { "cells": [] } } }]);
    let mut second = push(impossible);
    (second["order"], second["push_id"]) = (2.into(), client_id(201).into());
    let answer = stage.post("/api/sync/push", &token, second).await.json();
    assert_eq!(answer["answers"][0][1]["reason"], "impossible", "{answer}");

    let pull = format!("/api/sync/pull?client_id={}&epoch=1&schema=1", client_id(1));
    let page = stage.get(&pull, &token).await.json();
    assert_eq!(page["rows"][0]["values"], json!([[2, "a"], [3, null]]));
    stage.get(&format!("{pull}&cursor=5"), &token).await.problem(409, "snapshot-needed");
    stage.get(&format!("{pull}&since_schema=1"), &token).await.problem(400, "bad-input");
    stage.get(&format!("{pull}&schema=x"), &token).await.problem(400, "bad-input");
    stage.get(&pull.replace("schema=1", "schema=2"), &token).await.problem(409, "schema-ahead");
    let other = device(&stage, 2).await;
    stage.get(&pull, &other).await.problem(409, "client-taken");
    let (read, operate) = (stage.key(Scope::Read).await, stage.key(Scope::Operate).await);
    let space = format!("/api/clients/{}/space", client_id(1));
    stage.put(&space, &read, json!({ "space": "b" })).await.problem(403, "wrong-scope");
    stage.put(&space, &operate, json!({ "space": "/" })).await.problem(400, "bad-body");
    assert_eq!(stage.put(&space, &operate, json!({ "space": "b" })).await.status, 200);
    stage.get("/api/conflicts?app=nowhere", &read).await.problem(404, "no-such-app");
}

#[tokio::test]
async fn who_pushes_while_all_turns_are_taken_is_told_when_to_come_again() {
    let stage = Stage::new().await;
    let token = device(&stage, 1).await;
    let who = format!("Authorization: Bearer {token}\r\n");
    let mut half_sent = Vec::new();
    let ask = async || stage.ask("POST", "/api/sync/push", &who, b"{}").await;
    // One that asks takes a turn itself for a moment, so eight may not be enough.
    let busy = within(async {
        loop {
            let mut stream = TcpStream::connect(stage.addr).await.unwrap();
            let head = format!("POST /api/sync/push HTTP/1.1\r\nHost: test\r\n{who}Content-Length: 100\r\n\r\n{{");
            stream.write_all(head.as_bytes()).await.unwrap();
            half_sent.push(stream);
            let reply = ask().await;
            if reply.status == 429 {
                break reply;
            }
            reply.problem(400, "bad-body");
        }
    })
    .await;
    assert!(half_sent.len() >= 8, "{} were too many", half_sent.len());
    busy.problem(429, "busy");
    assert_eq!(busy.headers["retry-after"], "2");
    drop(half_sent);
    within(async { while ask().await.status == 429 {} }).await;
}

/// Not a test of speed but of its order of magnitude; prints the figures. A release build says what counts.
#[tokio::test]
async fn a_hundred_thousand_rows_go_up_and_come_down() {
    let rows: usize = if cfg!(debug_assertions) { 20_000 } else { 100_000 };
    let stage = Stage::new().await;
    let mut five = tables();
    five.target.custom.columns =
        Some(serde_json::from_value(json!({ "made": [[1, "t1", [[1, "id"], [2, "title"], [3, "n"], [4, "price"], [5, "at"]]]] })).unwrap());
    five.target.custom.sync =
        serde_json::from_value(json!({ "tables": [{ "table": 1, "direction": "both", "conflict": "merge", "key": [[1, "binary"]] }] })).unwrap();
    assert_eq!(stage.publish(vec![five]).await.status, 200);
    let (one, two) = (device(&stage, 1).await, device(&stage, 2).await);
    let change = |n: usize| {
        let values = [
            Value::text(&format!("title of {}", n * 7 % 1000)),
            Value::Integer(n as i64 % 500),
            Value::real(n as f64 / 4.0),
            Value::Integer(1_750_000_000 + n as i64),
        ];
        let cells = (2..).zip(values).map(|(column, value)| Cell { column, value, base: 0, clock: Clock::at_ms(1_750_000_000_000 + n as i64) });
        Change { table: 1, key: vec![Value::Integer(n as i64)], edit: Edit::Present { seen: 0, cells: cells.collect() } }
    };
    let (mut up_bytes, mut down_bytes) = (0, 0);
    let pages: Vec<Vec<u8>> = (0..rows)
        .step_by(MAX_PAGE_ROWS)
        .map(|from| {
            let head = PushHead {
                push_id: PushId::from_dice(from as u128),
                client_id: client_id(1).parse().unwrap(),
                epoch: 1,
                order: 1 + from as u64,
                schema: 1,
                series: None,
                reached: None,
            };
            packed::pack_changes(&head, &(from..(from + MAX_PAGE_ROWS).min(rows)).map(change).collect::<Vec<_>>())
        })
        .collect();
    let began = Instant::now();
    for page in &pages {
        let headers = format!("Authorization: Bearer {one}\r\nContent-Type: {}\r\n", packed::CONTENT_TYPE);
        let reply = stage.ask("POST", "/api/sync/push", &headers, page).await;
        let answer: PushResponse = serde_json::from_slice(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
        assert_eq!(answer.answers, []);
        up_bytes += page.len() + reply.body.len();
    }
    let up = began.elapsed();
    let began = Instant::now();
    let (mut got, mut cursor) = (0, String::new());
    loop {
        let path = format!("/api/sync/pull?client_id={}&epoch=1&schema=1{cursor}", client_id(2));
        let headers = format!("Authorization: Bearer {two}\r\nAccept: {}\r\n", packed::CONTENT_TYPE);
        let reply: Reply = stage.ask("GET", &path, &headers, b"").await;
        let (head, page) = packed::unpack_rows::<PullHead>(&reply.body).unwrap_or_else(|e| panic!("{e}: {reply:?}"));
        down_bytes += reply.body.len();
        got += page.len();
        if !head.more {
            break;
        }
        cursor = format!("&cursor={}&series={}", head.next, head.series);
    }
    let down = began.elapsed();
    assert_eq!(got, rows);
    let rate = |took: std::time::Duration| rows as f64 / took.as_secs_f64();
    println!(
        "{rows} rows: pushed {:.0} rows/s at {:.1} bytes a row, pulled {:.0} rows/s at {:.1} bytes a row",
        rate(up),
        up_bytes as f64 / rows as f64,
        rate(down),
        down_bytes as f64 / rows as f64
    );
    assert!(up_bytes / rows <= 20 && down_bytes / rows <= 20);
}
