//! Random edits and random carry maps: what waits before a migration is what waits after it, each cell at its fate, and
//! nothing else (the outbox is conserved). `WHIMBREL_NIGHT=1` takes twenty times as many cases; `WHIMBREL_SEED=N` the ones of one chain.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicU64, Ordering},
};

use fastrand::Rng;
use whimbrel::{
    store::outbox::{Deed, Sent},
    sync::shape::Mode,
};
use whimbrel_shared::status::Operation;

use crate::bed::{Answer, Bed, Cell, Dirt, Published, publish};

/// Files, each with its own edits, for each random chain.
const FILES: u64 = 10;

/// What becomes of one column, by names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    Keep,
    /// It stays, and its type becomes another.
    Retype,
    Rename,
    Archive,
    Discard,
    /// Into `X_1` and `X_2`.
    Split,
    /// Into `m`, with the others of this fate.
    Merge,
    /// Into the table `place`.
    Move,
}

/// A random version after a table `t(id, a, b, c, d, e, f)`.
#[derive(Debug)]
struct Plan {
    fates: BTreeMap<&'static str, Fate>,
    /// Whether the key becomes another.
    rekey: bool,
    /// What the table is called afterwards; none: it goes, and what does not move is archived.
    to: Option<&'static str>,
}

/// What is archived: key as JSON, column, value.
type Kept = (String, Option<String>, Option<String>);

const COLUMNS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What waits, by table, key and column.
type Waits = BTreeMap<Cell, Dirt>;

impl Plan {
    fn random(rng: &mut Rng) -> Self {
        let rekey = rng.u8(..4) == 0;
        let gone = !rekey && rng.u8(..6) == 0;
        let mut fates: BTreeMap<&'static str, Fate> = COLUMNS
            .into_iter()
            .map(|column| {
                let fate = match (gone, rng.u8(..14)) {
                    (true, 0..7) => Fate::Archive,
                    (true, _) => Fate::Move,
                    (false, 0..2) => Fate::Keep,
                    (false, 2..4) => Fate::Retype,
                    (false, 4..6) => Fate::Rename,
                    (false, 6..8) => Fate::Archive,
                    (false, 8) => Fate::Discard,
                    (false, 9) => Fate::Split,
                    (false, 10..13) => Fate::Merge,
                    (false, _) => {
                        if rekey {
                            Fate::Keep
                        } else {
                            Fate::Move
                        }
                    }
                };
                (column, fate)
            })
            .collect();
        let merged: Vec<&'static str> = fates.iter().filter(|(_, f)| **f == Fate::Merge).map(|(c, _)| *c).collect();
        if let [alone] = merged.as_slice() {
            fates.insert(alone, Fate::Keep);
        }
        let to = if gone { None } else { Some(*rng.choice(&["t", "t", "u"]).unwrap()) };
        Self { fates, rekey, to }
    }

    fn of(&self, fate: Fate) -> Vec<&'static str> {
        self.fates.iter().filter(|(_, f)| **f == fate).map(|(c, _)| *c).collect()
    }

    /// New columns of the table, each with its value from the old row.
    fn columns(&self) -> Vec<(String, String)> {
        let mut columns = vec![if self.rekey { ("uuid".to_owned(), "'u-' || id".to_owned()) } else { ("id".to_owned(), "id".to_owned()) }];
        for (column, fate) in &self.fates {
            match fate {
                Fate::Keep | Fate::Retype => columns.push(((*column).to_owned(), (*column).to_owned())),
                Fate::Rename => columns.push((format!("{column}_new"), (*column).to_owned())),
                Fate::Split => columns.extend([1, 2].map(|n| (format!("{column}_{n}"), format!("{column} || '-{n}'")))),
                Fate::Archive | Fate::Discard | Fate::Merge | Fate::Move => {}
            }
        }
        let merged = self.of(Fate::Merge);
        if !merged.is_empty() {
            columns.push(("m".to_owned(), merged.join(" || ")));
        }
        // What nobody edited.
        columns.push(("fresh".to_owned(), "'fresh'".to_owned()));
        columns
    }

    fn up(&self) -> String {
        let mut sql = String::new();
        let moved = self.of(Fate::Move);
        if !moved.is_empty() {
            let list = moved.iter().map(|c| format!("{c}_moved TEXT")).collect::<Vec<_>>().join(", ");
            sql.push_str(&format!(
                "CREATE TABLE place(t TEXT NOT NULL PRIMARY KEY, {list}); INSERT INTO place SELECT id, {} FROM t;\n",
                moved.join(", ")
            ));
        }
        let Some(to) = self.to else { return format!("{sql}DROP TABLE t;") };
        let columns = self.columns();
        let (names, values): (Vec<String>, Vec<String>) = columns.into_iter().unzip();
        let kind = |name: &str| if self.fates.get(name) == Some(&Fate::Retype) { "INTEGER" } else { "TEXT" };
        let rest = names[1..].iter().map(|n| format!(", {n} {}", kind(n))).collect::<String>();
        format!(
            "{sql}CREATE TABLE n({} TEXT NOT NULL PRIMARY KEY{rest}); INSERT INTO n SELECT {} FROM t; DROP TABLE t; ALTER TABLE n RENAME TO {to};",
            names[0],
            values.join(", ")
        )
    }

    fn toml(&self) -> String {
        let list = |columns: Vec<&str>, each: &dyn Fn(&str) -> String| columns.into_iter().map(each).collect::<Vec<_>>().join(", ");
        let mut carry = String::new();
        let mut say = |key: &str, text: String| {
            if !text.is_empty() {
                carry.push_str(&format!("{key} = {{ {text} }}\n"));
            }
        };
        if self.to.is_some() {
            say("rename", list(self.of(Fate::Rename), &|c| format!("{c} = '{c}_new'")));
            let mut drops =
                vec![list(self.of(Fate::Archive), &|c| format!("{c} = 'archive'")), list(self.of(Fate::Discard), &|c| format!("{c} = 'discard'"))];
            drops.extend(self.rekey.then(|| "id = 'discard'".to_owned()));
            say("drop", drops.into_iter().filter(|d| !d.is_empty()).collect::<Vec<_>>().join(", "));
            say("split", list(self.of(Fate::Split), &|c| format!("{c} = ['{c}_1', '{c}_2']")));
            let merged = list(self.of(Fate::Merge), &|c| format!("'{c}'"));
            say("merge", if merged.is_empty() { merged } else { format!("m = [{merged}]") });
            say("key", if self.rekey { "uuid = \"'u-' || id\"".to_owned() } else { String::new() });
        }
        let to = match self.to {
            Some(to) => format!("to = '{to}'\n"),
            None => "gone = 'archive'\n".to_owned(),
        };
        let moved = list(self.of(Fate::Move), &|c| format!("{c} = '{c}_moved'"));
        let into =
            if moved.is_empty() { moved } else { format!("[carry.into.place]\nkey = {{ t = 'id' }}\ncolumns = {{ {moved} }}\n[sync.place]\n") };
        let sync = self.to.map(|to| format!("[sync.{to}]\nmin_schema = 'this'\n")).unwrap_or_default();
        format!("destructive = true\n[[carry]]\ntable = 't'\n{to}{carry}{into}{sync}")
    }

    fn publish(&self) -> Published {
        let table = format!("CREATE TABLE t(id TEXT NOT NULL PRIMARY KEY{});", COLUMNS.map(|c| format!(", {c} TEXT")).concat());
        let file = |path: &str, text: String| (path.to_owned(), text);
        publish(&[
            file("1_a/up.sql", table),
            file("1_a/migration.toml", "[sync.t]".to_owned()),
            file("2_b/up.sql", self.up()),
            file("2_b/migration.toml", self.toml()),
        ])
    }

    /// What has to wait, and what has to be archived, by what waited before.
    fn expected(&self, before: &Waits) -> (Waits, BTreeSet<Kept>) {
        let (mut waits, mut archive) = (BTreeMap::<Cell, Dirt>::new(), BTreeSet::new());
        let mut wait = |table: &str, key: &str, column: Option<String>, dirt: &Dirt, value: Option<String>| {
            let dirt = Dirt { value, ..dirt.clone() };
            let cell = (table.to_owned(), vec![key.to_owned()], column);
            waits
                .entry(cell)
                .and_modify(|there| {
                    let base = there.edit.base.min(dirt.edit.base);
                    // Sent as it is only if all of it was; and what was ever sent stays sent.
                    let sent = match (there.edit.sent, dirt.edit.sent) {
                        (Sent::Never, Sent::Never) => Sent::Never,
                        (Sent::As(a), Sent::As(b)) if a == b => Sent::As(a),
                        _ => Sent::EditedSince,
                    };
                    if dirt.edit.stamp.seq > there.edit.stamp.seq {
                        *there = dirt.clone();
                    }
                    (there.edit.base, there.edit.sent) = (base, sent);
                })
                .or_insert(dirt);
        };
        let mut rows: BTreeMap<&str, Vec<(&Cell, &Dirt)>> = BTreeMap::new();
        for (cell, dirt) in before {
            rows.entry(&cell.1[0]).or_default().push((cell, dirt));
        }
        for (key, cells) in rows {
            let new_key = if self.rekey { format!("u-{key}") } else { key.to_owned() };
            let (deed, first) = (cells[0].1.deed, cells[0].1);
            let moves = !self.of(Fate::Move).is_empty();
            if deed == Deed::Delete {
                if moves {
                    wait("place", key, None, first, None);
                }
                match self.to {
                    Some(to) => wait(to, &new_key, None, first, None),
                    None if moves => {}
                    None => drop(archive.insert((format!("[\"{key}\"]"), None, None))),
                }
                continue;
            }
            let mut stays = false;
            for ((_, _, column), dirt) in &cells {
                let column = column.as_deref().expect("every column of it is data");
                let (to, value) = (self.to.unwrap_or("t"), dirt.value.clone());
                match &self.fates[column] {
                    Fate::Keep | Fate::Retype => wait(to, &new_key, Some(column.to_owned()), dirt, value),
                    Fate::Rename => wait(to, &new_key, Some(format!("{column}_new")), dirt, value),
                    Fate::Split => {
                        for n in [1, 2] {
                            wait(to, &new_key, Some(format!("{column}_{n}")), dirt, value.as_ref().map(|v| format!("{v}-{n}")));
                        }
                    }
                    Fate::Merge => wait(to, &new_key, Some("m".to_owned()), dirt, None),
                    Fate::Move => wait("place", key, Some(format!("{column}_moved")), dirt, value),
                    Fate::Archive => drop(archive.insert((format!("[\"{key}\"]"), Some(column.to_owned()), value))),
                    Fate::Discard => {}
                }
                stays |= matches!(self.fates[column], Fate::Keep | Fate::Retype | Fate::Rename | Fate::Split | Fate::Merge);
            }
            // A new row whose columns all went is new all the same.
            if let (Deed::Insert, false, Some(to)) = (deed, stays, self.to) {
                let last = cells.iter().max_by_key(|(_, d)| d.edit.stamp.seq).unwrap().1;
                wait(to, &new_key, None, last, None);
            }
        }
        (waits, archive)
    }
}

/// Random statements of the application.
fn statements(rng: &mut Rng) -> String {
    let key = |rng: &mut Rng| format!("k{}", rng.u8(..7));
    let value = |rng: &mut Rng| if rng.u8(..8) == 0 { "NULL".to_owned() } else { format!("'{}'", rng.u32(..1_000_000)) };
    let mut sql = String::new();
    for _ in 0..rng.usize(2..9) {
        let row = key(rng);
        match rng.u8(..10) {
            0 => {
                let values = COLUMNS.map(|_| value(rng)).join(", ");
                sql.push_str(&format!("INSERT OR REPLACE INTO t VALUES ('{row}', {values});"));
            }
            1 => sql.push_str(&format!("DELETE FROM t WHERE id = '{row}';")),
            2 => sql.push_str(&format!("UPDATE OR IGNORE t SET id = '{}' WHERE id = '{row}';", key(rng))),
            _ => {
                let column = COLUMNS[rng.usize(..COLUMNS.len())];
                sql.push_str(&format!("UPDATE t SET {column} = {} WHERE id = '{row}';", value(rng)));
            }
        }
    }
    sql
}

/// One chain, and some files with edits. Returns how many dirty cells were carried, and in how many rows edits that saw
/// different versions of the row became one.
fn cases(seed: u64) -> (u64, u64) {
    let mut rng = Rng::with_seed(seed);
    let plan = Plan::random(&mut rng);
    let published = plan.publish();
    let (mut carried, mut met) = (0, 0);
    for _ in 0..FILES {
        let mut bed = Bed::new(&published);
        bed.go(Operation::Apply, 1, 1);
        if rng.bool() {
            bed.app().execute_batch(&statements(&mut rng)).unwrap();
        }
        bed.capture(1, if rng.bool() { Mode::Mask } else { Mode::KeyOnly });
        if rng.u8(..4) > 0 {
            let rows: Vec<String> = (0..6).map(|key| format!("('k{key}'{})", ", '1'".repeat(COLUMNS.len()))).collect();
            bed.app().execute_batch(&format!("INSERT OR REPLACE INTO t VALUES {}", rows.join(", "))).unwrap();
            bed.acknowledge();
        }
        for _ in 0..rng.usize(2..6) {
            bed.app().execute_batch(&statements(&mut rng)).unwrap();
            if rng.u8(..3) > 0 {
                let answers = [Answer::Accepted, Answer::Another, Answer::Another, Answer::None, Answer::NotSent];
                bed.exchange(&mut || *rng.choice(&answers).unwrap());
            }
        }
        let before = bed.dirty();
        carried += before.len() as u64;
        let (waits, archive) = plan.expected(&before);
        let bases = |key: &str| -> BTreeSet<Option<u64>> {
            let of = |(cell, _): &(&Cell, &Dirt)| cell.1[0] == key && cell.2.as_deref().is_some_and(|c| plan.fates.get(c) == Some(&Fate::Merge));
            before.iter().filter(of).map(|(_, dirt)| dirt.edit.base).collect()
        };
        met += before.keys().map(|cell| cell.1[0].as_str()).collect::<BTreeSet<_>>().into_iter().filter(|key| bases(key).len() > 1).count();
        bed.go(Operation::Apply, 2, 2);
        let after = bed.dirty();
        compare(&waits, &after).unwrap_or_else(|what| panic!("seed {seed}: {what}\n{plan:?}\nbefore {before:#?}"));
        let kept: BTreeSet<_> = bed.archive().into_iter().map(|(_, key, column, value)| (key, column, value)).collect();
        assert_eq!(kept, archive, "seed {seed}: {plan:?}\n{before:#?}");
        // Nothing that the migration wrote becomes an edit, however long one looks.
        bed.sweep_all();
        let known: BTreeMap<Cell, Dirt> = bed.dirty().into_iter().filter(|(_, dirt)| dirt.deed != Deed::Insert).collect();
        let waited: BTreeMap<Cell, Dirt> = after.into_iter().filter(|(_, dirt)| dirt.deed != Deed::Insert).collect();
        compare(&waited, &known).unwrap_or_else(|what| panic!("seed {seed}, looked through: {what}\n{plan:?}"));
    }
    (carried, met as u64)
}

/// Times are rounded anew at each fold, so places in the order are compared.
fn compare(expected: &BTreeMap<Cell, Dirt>, found: &BTreeMap<Cell, Dirt>) -> Result<(), String> {
    let plain = |cells: &BTreeMap<Cell, Dirt>| -> BTreeMap<Cell, _> {
        // New rows may say more of themselves: they are sent as a whole.
        let new_columns = |cell: &Cell, dirt: &Dirt| dirt.deed == Deed::Insert && cell.2.as_deref().is_some_and(|c| c == "fresh");
        cells
            .iter()
            .filter(|(cell, dirt)| !new_columns(cell, dirt))
            .map(|(cell, dirt)| {
                let value = if cell.2.as_deref() == Some("m") { None } else { dirt.value.clone() };
                (cell.clone(), (dirt.deed, dirt.edit.base, dirt.edit.stamp.seq, dirt.edit.sent, value))
            })
            .collect()
    };
    let (expected, found) = (plain(expected), plain(found));
    let lost: Vec<_> =
        expected.iter().filter(|(cell, dirt)| found.get(*cell) != Some(dirt)).map(|(cell, dirt)| (cell, dirt, found.get(cell))).collect();
    let made: Vec<_> = found.iter().filter(|(cell, _)| !expected.contains_key(*cell)).collect();
    if lost.is_empty() && made.is_empty() { Ok(()) } else { Err(format!("not conserved: {lost:?}; made: {made:?}")) }
}

#[test]
fn no_unsent_edit_is_lost_or_made_whatever_a_migration_does() {
    if let Some(seed) = std::env::var("WHIMBREL_SEED").ok().and_then(|s| s.parse().ok()) {
        cases(seed);
        return;
    }
    let night = std::env::var_os("WHIMBREL_NIGHT").is_some_and(|v| v == "1");
    let chains = if night { 1_000 } else { 50 };
    let (next, carried, met) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= chains {
                        break;
                    }
                    let done = cases(seed);
                    carried.fetch_add(done.0, Ordering::Relaxed);
                    met.fetch_add(done.1, Ordering::Relaxed);
                }
            });
        }
    });
    let (carried, met) = (carried.into_inner(), met.into_inner());
    println!("{} cases, {carried} dirty cells, {met} rows in which edits with different bases became one", chains * FILES);
    assert!(carried > chains * FILES && met > 0, "edits were hardly made");
}
