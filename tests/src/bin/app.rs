//! An application that knows nothing of Whimbrel, as a process of its own. Says `ready`, works until its stdin ends or
//! says something, then prints what it counted as one line of JSON. `whimbrel_tests::App` speaks to it.

use std::{
    io::Read,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use rusqlite::{Connection, ErrorCode};
use serde_json::json;

fn main() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let stopped = listen();
    match args[..] {
        ["write", database, table, every_ms, busy_ms] => write(database, table, every_ms.parse()?, busy_ms.parse()?, &stopped),
        ["read", database, every_ms, busy_ms] => read(database, every_ms.parse()?, busy_ms.parse()?, &stopped),
        ["hold-write", database, hold_ms] => hold(database, "BEGIN IMMEDIATE", Duration::from_millis(hold_ms.parse()?), &stopped),
        ["hold-read", database, hold_ms] => hold(database, "BEGIN", Duration::from_millis(hold_ms.parse()?), &stopped),
        ["open", database] => hold(database, "", Duration::MAX, &stopped),
        _ => bail!("usage: write DB TABLE EVERY_MS BUSY_MS | read DB EVERY_MS BUSY_MS | hold-write DB MS | hold-read DB MS | open DB"),
    }
}

/// A flag that is set when stdin says something or ends.
fn listen() -> Arc<AtomicBool> {
    let stopped = Arc::<AtomicBool>::default();
    let inner = stopped.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0; 64]);
        inner.store(true, Ordering::Relaxed);
    });
    stopped
}

fn open(database: &str, busy_ms: u64) -> anyhow::Result<Connection> {
    let connection = Connection::open(database).context("opening")?;
    connection.busy_timeout(Duration::from_millis(busy_ms))?;
    Ok(connection)
}

/// What happened to the statements.
#[derive(Default)]
struct Count {
    took_us: Vec<u64>,
    busy: u64,
    /// Since when every try was refused.
    refused_since: Option<Instant>,
    longest_busy: Duration,
    errors: Vec<String>,
}

impl Count {
    fn note(&mut self, begun: Instant, result: rusqlite::Result<()>) {
        match result {
            Ok(()) => {
                self.took_us.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
                self.refused_since = None;
            }
            Err(error) => {
                if matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)) {
                    self.busy += 1;
                    self.longest_busy = self.longest_busy.max(self.refused_since.get_or_insert(begun).elapsed());
                }
                if self.errors.len() < 20 {
                    self.errors.push(error.to_string());
                }
            }
        }
    }

    fn print(mut self) {
        self.took_us.sort_unstable();
        let at = |share: f64| self.took_us.get(((self.took_us.len() as f64) * share) as usize).copied().unwrap_or(0);
        let (p50, p99, max) = (at(0.5), at(0.99), self.took_us.last().copied().unwrap_or(0));
        let longest_busy_us = u64::try_from(self.longest_busy.as_micros()).unwrap_or(u64::MAX);
        println!(
            "{}",
            json!({ "done": self.took_us.len(), "busy": self.busy, "errors": self.errors, "p50_us": p50, "p99_us": p99, "max_us": max,
                    "longest_busy_us": longest_busy_us })
        );
    }
}

fn write(database: &str, table: &str, every_ms: u64, busy_ms: u64, stopped: &AtomicBool) -> anyhow::Result<()> {
    let connection = open(database, busy_ms)?;
    let sql = format!("INSERT INTO \"{table}\" (body) VALUES (?1)");
    let mut count = Count::default();
    let mut n = 0u64;
    while !stopped.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let result = connection.prepare_cached(&sql).and_then(|mut statement| statement.execute([format!("written {n}")])).map(|_| ());
        count.note(begun, result);
        if n == 0 {
            println!("ready");
        }
        n += 1;
        std::thread::sleep(Duration::from_millis(every_ms).saturating_sub(begun.elapsed()).max(Duration::from_micros(100)));
    }
    count.print();
    Ok(())
}

fn read(database: &str, every_ms: u64, busy_ms: u64, stopped: &AtomicBool) -> anyhow::Result<()> {
    let mut count = Count::default();
    let mut said = false;
    while !stopped.load(Ordering::Relaxed) {
        let begun = Instant::now();
        let connection = open(database, busy_ms)?;
        let result = connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0)).map(|_| ());
        count.note(begun, result);
        if !said {
            println!("ready");
            said = true;
        }
        std::thread::sleep(Duration::from_millis(every_ms).saturating_sub(begun.elapsed()).max(Duration::from_micros(100)));
    }
    count.print();
    Ok(())
}

fn hold(database: &str, begin: &str, hold: Duration, stopped: &AtomicBool) -> anyhow::Result<()> {
    let connection = open(database, 10_000)?;
    connection.execute_batch(begin)?;
    connection.query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, i64>(0))?;
    println!("ready");
    let begun = Instant::now();
    while begun.elapsed() < hold && !stopped.load(Ordering::Relaxed) {
        std::thread::sleep(Duration::from_millis(5));
    }
    if !begin.is_empty() {
        connection.execute_batch("COMMIT")?;
    }
    println!("released");
    println!("{}", json!({ "held_ms": u64::try_from(begun.elapsed().as_millis())? }));
    Ok(())
}
