//! Databases at three versions that edit the same rows while versions are published and they move from one to the next: a
//! rename, a column with a backfill, a column that is split. What they end with is judged by a model that knows neither the
//! server's code nor its SQL.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use whimbrel_shared::{
    change::Edit,
    hlc::Clock,
    ids::{ClientId, PushId},
    lift::Lift,
    manifest::Manifest,
    migration::{Link, Migration, TargetEntry},
    protocol::{publish::PublishLink, push::PushRequest, sums::SumsResponse},
    value::Value,
};

use super::{
    database::{Database, Fault, Sent, Shape},
    device,
};
use crate::support::{Stage, client_id, link};

const GIVEN: u32 = 2;
const NAME: u32 = 3;
const NOTE: u32 = 4;
const SLUG: u32 = 5;
const FAMILY: u32 = 6;
const SUFFIX: u32 = 7;

static SHAPE: Shape = Shape { tables: 2, columns, global: 2, empty: || Value::text(""), migrate };

fn columns(version: u32) -> &'static [u32] {
    match version {
        1 => &[GIVEN, NAME, NOTE],
        2 => &[GIVEN, NAME, NOTE, SLUG],
        _ => &[GIVEN, NOTE, SLUG, FAMILY, SUFFIX],
    }
}

/// What the backfills compute, without SQL.
fn derive(version: u32, source: Option<&Value>) -> Vec<(u32, Value)> {
    let text = match source {
        Some(Value::Text(text)) => Some(std::str::from_utf8(text).unwrap()),
        _ => None,
    };
    let value = |text: Option<&str>| text.map_or(Value::Null, Value::text);
    match version {
        2 => vec![(SLUG, value(text.map(|t| t.to_lowercase()).as_deref()))],
        _ => {
            let (family, suffix) = text.map(|t| t.split_once(' ').unwrap_or((t, ""))).unzip();
            vec![(FAMILY, value(family)), (SUFFIX, value(suffix))]
        }
    }
}

fn source(version: u32) -> u32 {
    if version == 2 { GIVEN } else { NAME }
}

fn migrate(version: u32, values: &mut BTreeMap<u32, Value>) -> &'static [(u32, u32)] {
    let derived = derive(version, values.get(&source(version)));
    values.extend(derived);
    if version == 2 { &[(GIVEN, SLUG)] } else { &[(NAME, FAMILY), (NAME, SUFFIX)] }
}

/// The first `count` versions.
fn chain(count: u32) -> Vec<PublishLink> {
    let map = |version: u32| {
        let name = |id: u32| match id {
            GIVEN if version == 1 => "first",
            GIVEN => "given",
            NAME => "name",
            NOTE => "note",
            SLUG => "slug",
            FAMILY => "family",
            _ => "suffix",
        };
        let columns: Vec<_> = std::iter::once(json!([1, "id"])).chain(columns(version).iter().map(|id| json!([id, name(*id)]))).collect();
        json!({ "made": [[1, "t1", columns], [2, "t2", columns]] })
    };
    let fill = |set: &str, filter: &str| {
        let step = |table: &str| format!("[[step]]\nbackfill='{table}'\nset=\"{set}\"\nwhere=\"{filter}\"\n");
        format!("mode='online'\n{}{}", step("t1"), step("t2"))
    };
    let manifests = [
        String::new(),
        fill("slug = lower(given)", "slug IS NULL"),
        fill("family = substr(name, 1, instr(name || ' ', ' ') - 1), suffix = substr(name, instr(name || ' ', ' ') + 1)", "family IS NULL"),
    ];
    let known = ["id INTEGER PRIMARY KEY, given TEXT, name TEXT, note TEXT, slug TEXT", "family TEXT, suffix TEXT"];
    let forms = [
        (String::new(), json!([])),
        (known[0].to_owned(), json!([["id", 1, 1], ["given", GIVEN, GIVEN], ["name", NAME, NAME], ["note", NOTE, NOTE], ["slug", 0, SLUG]])),
        (
            known.join(", "),
            json!([
                ["id", 1, 1],
                ["given", GIVEN, GIVEN],
                ["name", NAME, 0],
                ["note", NOTE, NOTE],
                ["slug", SLUG, SLUG],
                ["family", 0, FAMILY],
                ["suffix", 0, SUFFIX]
            ]),
        ),
    ];
    let mut links: Vec<PublishLink> = Vec::new();
    for version in 1..=count {
        let at = version as usize - 1;
        let mut one = link(version, &format!("{version:04}"), links.last().map(|l| l.target.digest()), "SELECT 1;");
        let migration = Migration { manifest: Manifest::parse(&manifests[at]).unwrap(), ..Migration::from_bytes(one.body.as_bytes()).unwrap() };
        one.body = String::from_utf8(migration.to_bytes()).unwrap();
        let lift = |table: u32| Lift {
            step: table,
            table,
            create: format!("CREATE TABLE t{table}({})", forms[at].0),
            columns: serde_json::from_value(forms[at].1.clone()).unwrap(),
        };
        let table =
            |(table, strategy)| json!({ "table": table, "direction": "both", "conflict": strategy, "keys": "global", "key": [[1, "binary"]] });
        let synced = json!({ "tables": [table((1, "merge")), table((2, "keep-newest"))] });
        let custom = Link {
            columns: Some(serde_json::from_value(map(version)).unwrap()),
            sync: if version == 1 { serde_json::from_value(synced).unwrap() } else { Default::default() },
            lifts: if version == 1 { Vec::new() } else { vec![lift(1), lift(2)] },
            ..one.target.custom
        };
        one.target = TargetEntry::new(one.body.as_bytes(), custom);
        links.push(one);
    }
    links
}

#[derive(Clone, Debug)]
struct Cell {
    value: Value,
    number: u64,
    stamp: (Clock, ClientId),
}

/// What the rows of table 1, which is merged, should come to: every push taken once, in the order in which they were sent.
#[derive(Default)]
struct Judge {
    rows: BTreeMap<i64, BTreeMap<u32, Cell>>,
    taken: BTreeSet<PushId>,
    number: u64,
    published: u32,
    /// How often a computed value met one that a newer version had written, and won, and lost.
    met: (u32, u32),
}

impl Judge {
    /// Rows of before get what the version computes, with the stamp of what it is computed from.
    fn publish(&mut self, version: u32) {
        self.published = version;
        if version == 1 {
            return;
        }
        for row in self.rows.values_mut() {
            let from = row[&source(version)].clone();
            row.extend(derive(version, Some(&from.value)).into_iter().map(|(column, value)| (column, Cell { value, ..from.clone() })));
        }
    }

    fn take(&mut self, push: &PushRequest) {
        if !self.taken.insert(push.head.push_id) {
            return;
        }
        let by = push.head.client_id;
        for change in &push.changes {
            self.number += 1;
            let number = self.number;
            let (1, Value::Integer(key), Edit::Present { cells, .. }) = (change.table, &change.key[0], &change.edit) else { continue };
            let before = self.rows.get(key).cloned();
            if before.is_none() && cells.len() < columns(push.head.schema).len() {
                continue;
            }
            let row = self.rows.entry(*key).or_default();
            for cell in cells {
                put(row, cell.column, cell.base, Cell { value: cell.value.clone(), number, stamp: (cell.clock, by) });
            }
            for version in push.head.schema + 1..=self.published {
                let of = |row: &BTreeMap<u32, Cell>| derive(version, row.get(&source(version)).map(|cell| &cell.value));
                let was = before.as_ref().map(of);
                for (column, value) in of(row) {
                    let then = was.as_ref().and_then(|was| was.iter().find(|(c, _)| *c == column)).map(|(_, value)| value);
                    if then == Some(&value) {
                        continue;
                    }
                    let clock = row[&source(version)].stamp.0;
                    // Who has not touched it since sees it through what it is computed from; who has is another writer.
                    let follows = row.get(&column).is_none_or(|held| then == Some(&held.value));
                    let won = put(row, column, if follows { u64::MAX } else { 0 }, Cell { value, number, stamp: (clock, by) });
                    match (follows, won) {
                        (true, _) => {}
                        (false, true) => self.met.0 += 1,
                        (false, false) => self.met.1 += 1,
                    }
                }
            }
        }
    }

    fn rows(&self) -> BTreeMap<(u32, String), String> {
        let text = |row: &BTreeMap<u32, Cell>| columns(3).iter().map(|c| format!("{c}={:?}", row[c].value)).collect::<Vec<_>>().join(" ");
        self.rows.iter().map(|(key, row)| ((1, key.to_string()), text(row))).collect()
    }
}

/// One cell of a merge; whether it is taken.
fn put(row: &mut BTreeMap<u32, Cell>, column: u32, base: u64, cell: Cell) -> bool {
    let unseen = row.get(&column).filter(|held| held.number > base && held.stamp.1 != cell.stamp.1);
    let taken = unseen.is_none_or(|held| cell.stamp > held.stamp);
    if taken {
        row.insert(column, cell);
    }
    taken
}

/// A history of three versions. Answers how often a computed value met one that was written, and won, and lost.
async fn history(seed: u64, steps: usize) -> (u32, u32) {
    let stage = Stage::new().await;
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut judge = Judge::default();
    let mut databases = Vec::new();
    assert_eq!(stage.publish(chain(1)).await.status, 200);
    judge.publish(1);
    for n in 1..=4 {
        databases.push(Database::new(n, device(&stage, n).await, &SHAPE));
    }
    for step in 0..steps {
        for version in [2, 3] {
            if step == steps / 3 * (version as usize - 1) {
                assert_eq!(stage.publish(chain(version)).await.status, 200);
                judge.publish(version);
            }
        }
        let at = dice.usize(..4);
        let database = &mut databases[at];
        match dice.u8(..12) {
            0..=5 => {
                // Some rows are of the first version and are never written again.
                let (table, key) = (dice.u32(1..=2), dice.i64(1..if judge.published == 1 { 6 } else { 3 }));
                let all = columns(database.schema);
                let column = all[dice.usize(..all.len())];
                let wall_ms = 1_700_000_000_000 + if at == 0 { 0 } else { step as i64 * 1000 + at as i64 * 90_000 };
                // No two writes say the same, nor do halves of them.
                database.write(table, key, column, Value::text(&format!("V{step} W{step}")), wall_ms);
            }
            6 => {
                let key = dice.i64(1..3);
                if database.has_seen(2, key) {
                    database.delete(2, key, 1_700_000_000_000 + step as i64 * 1000);
                }
            }
            7..=8 => {
                let fault = [Fault::None, Fault::None, Fault::Doubled, Fault::Cut, Fault::AnswerLost][dice.usize(..5)];
                database.push(&stage, &mut dice, fault).await;
                database.sent.take().iter().for_each(|push| judge.take(push));
            }
            9..=10 => database.pull(&stage, [Fault::None, Fault::AnswerLost][dice.usize(..2)]).await,
            _ => {
                if database.schema < judge.published && dice.u8(..4) == 0 {
                    database.migrate();
                }
            }
        }
    }
    for round in 0..5 {
        for database in &mut databases {
            // Some say their last in their old version.
            while database.schema < 3 && round > 0 {
                database.migrate();
            }
            while let Sent::Some(_) = database.push_all(&stage, &mut dice).await {
                database.sent.take().iter().for_each(|push| judge.take(push));
            }
            database.pull(&stage, Fault::None).await;
        }
    }
    let mut fresh = Database::new(9, device(&stage, 9).await, &SHAPE);
    fresh.schema = 3;
    fresh.pull(&stage, Fault::None).await;
    let rows = fresh.rows();
    let judged = rows.iter().filter(|((table, _), _)| *table == 1).map(|(at, row)| (at.clone(), row.clone())).collect::<BTreeMap<_, _>>();
    assert_eq!(judged, judge.rows(), "seed {seed}");
    for database in databases.iter().chain([&fresh]) {
        assert!(database.is_clean(), "seed {seed}: {database:?}");
        assert_eq!(database.rows(), rows, "seed {seed}, database {}", database.n);
        let asked = format!("/api/sync/sums?client_id={}&schema=3", client_id(database.n));
        let sums: SumsResponse = serde_json::from_slice(&stage.get(&asked, &database.token).await.body).unwrap();
        assert_eq!(sums.tables, database.sums(), "seed {seed}, database {}", database.n);
    }
    judge.met
}

#[tokio::test]
async fn databases_of_three_versions_end_with_the_same_rows_and_those_are_as_judged() {
    let seeds = if std::env::var_os("WHIMBREL_NIGHT").is_some() { 500 } else { 16 };
    let mut met = (0, 0);
    for seed in 0..seeds {
        let (won, lost) = history(seed, 200).await;
        met = (met.0 + won, met.1 + lost);
    }
    println!("{seeds} histories: computed values met written ones {met:?} times (won, lost)");
    assert!(met.0 > 0 && met.1 > 0, "{met:?}: the histories do not show what they are for");
}
