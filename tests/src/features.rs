//! What a migration can be made of, one short chain each: for proofs that have to hold for all of them.

use rusqlite::Connection;
use whimbrel_shared::protocol::poll::Order;

use crate::migrations::Mig;

/// One feature of the engine.
pub struct Feature {
    /// In a word.
    pub name: &'static str,
    /// The chain.
    pub chain: Vec<Part>,
    /// What the server asks for, one after the other.
    pub orders: Vec<Order>,
    /// Whether its migrations may share a transaction.
    pub grouping: bool,
    /// Whether the last order ends in a failure that waits for a person.
    pub fails: bool,
    /// Where a migration of several transactions is under way, the file is right when one of these finds it so.
    pub halfway: Vec<Halfway>,
}

/// Judges the state of a file in which a migration of several transactions is under way.
pub type Halfway = fn(&Connection) -> Result<(), String>;

/// A link of a chain, and statements that do the same to a file.
pub struct Part {
    /// The link.
    pub mig: Mig,
    /// What plain SQLite is told instead, going up.
    pub plain: String,
}

impl From<Mig> for Part {
    /// One of plain statements.
    fn from(mig: Mig) -> Self {
        Self { plain: mig.up.clone(), mig }
    }
}

impl Feature {
    fn new<const N: usize>(name: &'static str, chain: [Mig; N]) -> Self {
        let chain = chain.map(Part::from).into();
        Self { name, chain, orders: vec![Order::ApplyUpTo { version: N as u32 }], grouping: false, fails: false, halfway: Vec::new() }
    }

    /// The last of the chain is not statements. Plain SQLite is told this instead.
    fn like(mut self, plain: &str) -> Self {
        self.chain.last_mut().expect("a chain has links").plain = plain.to_owned();
        self
    }

    fn halfway(mut self, judge: Halfway) -> Self {
        self.halfway.push(judge);
        self
    }

    fn then(mut self, order: Order) -> Self {
        self.orders.push(order);
        self
    }

    fn grouped(mut self) -> Self {
        self.grouping = true;
        self
    }

    /// The last of the chain cannot be applied.
    fn failing(mut self) -> Self {
        self.fails = true;
        self.chain.last_mut().expect("a chain has links").plain.clear();
        self
    }
}

/// What the application had before whimbrel came: a table of its own.
pub const BEFORE: &str = "CREATE TABLE apps_own(x PRIMARY KEY, y TEXT); INSERT INTO apps_own VALUES (1, 'one'), (2, 'two');";

/// All of them. A new kind of step gets its line here.
pub fn all() -> Vec<Feature> {
    vec![
        schema(),
        rebuild(),
        data(),
        full_text(),
        verified(),
        refuted(),
        broken_off(),
        grouped(),
        cascading(),
        rows_at_once(),
        backfilled_online(),
        loaded_online(),
        replaced_online(),
        collected_online(),
        rebuilt_online(),
    ]
}

/// The chains of all features that succeed, one after the other. The tables of each have names of their own.
pub fn whole() -> Feature {
    let mut whole = Feature::new("all of them in one chain", []);
    for feature in all().into_iter().filter(|f| !f.fails) {
        whole.halfway.extend(feature.halfway);
        for mut part in feature.chain {
            part.mig.name = format!("{:04}_{}", whole.chain.len() + 1, part.mig.name);
            whole.chain.push(part);
        }
    }
    whole.orders = vec![Order::ApplyUpTo { version: whole.chain.len() as u32 }];
    whole
}

fn schema() -> Feature {
    Feature::new(
        "schema",
        [
            Mig::up("schema_made", "CREATE TABLE s(id INTEGER PRIMARY KEY, a TEXT, b); INSERT INTO s VALUES (1, 'x', 2), (2, 'y', 3); CREATE INDEX s_a ON s(a);")
                .down("DROP TABLE s;"),
            Mig::up("schema_changed", "ALTER TABLE s ADD COLUMN c INTEGER NOT NULL DEFAULT 7; ALTER TABLE s RENAME COLUMN a TO name; CREATE VIEW sv AS SELECT name, b FROM s;")
                .down("DROP VIEW sv; ALTER TABLE s RENAME COLUMN name TO a; ALTER TABLE s DROP COLUMN c;"),
            Mig::up("schema_dropped", "ALTER TABLE s DROP COLUMN c; CREATE TRIGGER st AFTER UPDATE OF name ON s BEGIN UPDATE s SET b = b + 1 WHERE id = new.id; END; UPDATE s SET name = upper(name);")
                .down("DROP TRIGGER st; ALTER TABLE s ADD COLUMN c INTEGER NOT NULL DEFAULT 7;"),
        ],
    )
    .then(Order::RevertDownTo { version: 1 })
    .then(Order::ApplyUpTo { version: 3 })
}

fn rebuild() -> Feature {
    let rebuilt = |name: &str| {
        format!(
            "PRAGMA foreign_keys=OFF; BEGIN;
             CREATE TABLE new_p(id INTEGER PRIMARY KEY, {name}); INSERT INTO new_p SELECT id, name FROM p;
             DROP TABLE p; ALTER TABLE new_p RENAME TO p; COMMIT; PRAGMA foreign_keys=ON;"
        )
    };
    Feature::new(
        "rebuild with cascading children",
        [
            Mig::up(
                "rebuild_made",
                "CREATE TABLE p(id INTEGER PRIMARY KEY, name TEXT);
                 CREATE TABLE c(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) ON DELETE CASCADE, body TEXT);
                 CREATE TABLE n(id INTEGER PRIMARY KEY, p INTEGER REFERENCES p(id) ON DELETE SET NULL);
                 INSERT INTO p VALUES (1, 'a'), (2, 'b'), (3, 'c');
                 INSERT INTO c SELECT id, 1 + id % 3, hex(zeroblob(200)) FROM (WITH RECURSIVE i(id) AS (VALUES (1) UNION ALL SELECT id + 1 FROM i WHERE id < 40) SELECT id FROM i);
                 INSERT INTO n VALUES (1, 1), (2, 3);",
            ),
            Mig::up("rebuild_done", rebuilt("name TEXT NOT NULL")).down(rebuilt("name TEXT")),
        ],
    )
    .then(Order::RevertDownTo { version: 1 })
}

fn data() -> Feature {
    Feature::new(
        "data moves",
        [
            Mig::up(
                "data_made",
                "CREATE TABLE person(id INTEGER PRIMARY KEY, name TEXT, street TEXT, city TEXT);
                 WITH RECURSIVE i(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM i WHERE n < 300)
                 INSERT INTO person SELECT n, 'person ' || n, 'street ' || n % 17, 'city ' || n % 5 FROM i;",
            ),
            Mig::up(
                "data_split",
                "CREATE TABLE address(id INTEGER PRIMARY KEY, street TEXT, city TEXT, UNIQUE (street, city));
                 INSERT INTO address(street, city) SELECT DISTINCT street, city FROM person ORDER BY 1, 2;
                 ALTER TABLE person ADD COLUMN address INTEGER REFERENCES address(id);
                 UPDATE person SET address = (SELECT a.id FROM address a WHERE a.street = person.street AND a.city = person.city);
                 ALTER TABLE person DROP COLUMN street; ALTER TABLE person DROP COLUMN city;",
            ),
            Mig::up("data_gone", "DELETE FROM person WHERE id % 3 = 0; UPDATE person SET name = name || '!' WHERE id % 2; PRAGMA user_version = 5;"),
        ],
    )
}

fn full_text() -> Feature {
    Feature::new(
        "full text and no rowid",
        [
            Mig::up(
                "text_made",
                "CREATE TABLE note(key TEXT PRIMARY KEY, body TEXT) WITHOUT ROWID, STRICT;
                 INSERT INTO note VALUES ('a', 'the whimbrel flies'), ('b', 'the curlew stays');",
            ),
            Mig::up("text_indexed", "CREATE VIRTUAL TABLE note_text USING fts5(key, body); INSERT INTO note_text SELECT key, body FROM note;"),
        ],
    )
}

fn verified() -> Feature {
    Feature::new(
        "verify",
        [
            Mig::up("verify_made", "CREATE TABLE v(x INTEGER); INSERT INTO v VALUES (1), (2);").verify("SELECT count(*) = 2 FROM v;"),
            Mig::up("verify_moved", "UPDATE v SET x = x * 10;").verify("SELECT x FROM v WHERE x < 10; SELECT sum(x) = 30 FROM v;"),
        ],
    )
}

fn refuted() -> Feature {
    Feature::new(
        "verify that does not hold",
        [
            Mig::up("refuted_made", "CREATE TABLE w(x INTEGER); INSERT INTO w VALUES (1), (2);"),
            Mig::up("refuted_moved", "UPDATE w SET x = x * 10; CREATE TABLE w2(y);").verify("SELECT x FROM w WHERE x > 10;"),
        ],
    )
    .failing()
}

fn broken_off() -> Feature {
    Feature::new(
        "failure in a group",
        [
            Mig::up("broken_made", "CREATE TABLE k(x INTEGER UNIQUE); INSERT INTO k VALUES (1), (2);"),
            Mig::up("broken_more", "INSERT INTO k VALUES (3);"),
            Mig::up("broken_off", "INSERT INTO k VALUES (4); INSERT INTO k VALUES (5), (1);"),
        ],
    )
    .grouped()
    .failing()
}

fn grouped() -> Feature {
    // Each of the later ones is the first to touch a table, so that a disk can fail in the middle of any of them.
    let mut feature = Feature::new(
        "group",
        [
            Mig::up("group_one", "CREATE TABLE g1(x); CREATE TABLE g2(x); CREATE TABLE g3(x); INSERT INTO g1 VALUES (1); INSERT INTO g2 VALUES (2); INSERT INTO g3 VALUES (3);"),
            Mig::up("group_two", "UPDATE g1 SET x = x + 1; ALTER TABLE g1 ADD COLUMN y;"),
            Mig::up("group_three", "UPDATE g2 SET x = x + (SELECT x FROM g1);"),
            Mig::up("group_four", "UPDATE g3 SET x = 10 * x; INSERT INTO g3 SELECT x FROM g2; DROP TABLE g2;"),
        ],
    )
    .grouped();
    feature.orders.insert(0, Order::ApplyUpTo { version: 1 });
    feature
}

fn cascading() -> Feature {
    Feature::new(
        "cascades that are wanted",
        [
            Mig::up(
                "cascade_made",
                "CREATE TABLE cp(id INTEGER PRIMARY KEY); CREATE TABLE cc(id INTEGER PRIMARY KEY, p REFERENCES cp(id) ON DELETE CASCADE);
                 INSERT INTO cp VALUES (1), (2); INSERT INTO cc VALUES (1, 1), (2, 1), (3, 2);",
            ),
            // What plain SQLite does with foreign keys on, which the library has by default.
            Mig::up("cascade_used", "DELETE FROM cp WHERE id = 1;").toml("foreign_keys = \"on\""),
        ],
    )
}

/// Rows 1, 2, 3 … `n` of one column `i`.
fn count(n: u32) -> String {
    format!("(WITH RECURSIVE i(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM i WHERE i < {n}) SELECT i FROM i)")
}

/// Shipped rows, one a line.
fn shipped(ids: std::ops::RangeInclusive<u32>) -> String {
    ids.map(|id| format!("{{\"id\": {id}, \"word\": \"word {id}\"}}\n")).collect()
}

fn number(file: &Connection, sql: &str) -> Result<i64, String> {
    file.query_row(sql, [], |row| row.get(0)).map_err(|e| format!("{sql}: {e}"))
}

/// Rows that the migration under way says it has changed.
fn said(file: &Connection) -> Result<i64, String> {
    number(file, "SELECT changed FROM _whimbrel_checkpoint")
}

fn equal(said: i64, found: i64) -> Result<(), String> {
    if said == found { Ok(()) } else { Err(format!("the checkpoint says {said} rows, and {found} are done")) }
}

fn rows_at_once() -> Feature {
    Feature::new(
        "backfill and load in one transaction",
        [
            Mig::up("rows_made", format!("CREATE TABLE ra(id INTEGER PRIMARY KEY, t TEXT); INSERT INTO ra SELECT i, 'T' || i FROM {}; CREATE TABLE rl(id INTEGER PRIMARY KEY, word TEXT);", count(60))),
            Mig::up("rows_moved", "ALTER TABLE ra ADD COLUMN low TEXT;").file("rows.ndjson", shipped(1..=30)).toml(
                "step = [{ sql = \"up.sql\" }, { backfill = \"ra\", set = \"low = lower(t)\", where = \"low IS NULL\" }, { load = \"rows.ndjson\", into = \"rl\", key = [\"id\"], conflict = \"replace\" }]",
            ),
        ],
    )
    .like(&format!("ALTER TABLE ra ADD COLUMN low TEXT; UPDATE ra SET low = lower(t); INSERT INTO rl SELECT i, 'word ' || i FROM {};", count(30)))
}

fn backfilled_online() -> Feature {
    // The application counts each change of a row: one that is changed twice shows for ever.
    Feature::new(
        "backfill online",
        [
            Mig::up(
                "online_made",
                format!(
                    "CREATE TABLE ob(id INTEGER PRIMARY KEY, title TEXT); INSERT INTO ob SELECT i, 'Title ' || i FROM {};
                     CREATE TABLE ob_changes(n INTEGER); INSERT INTO ob_changes VALUES (0);
                     CREATE TRIGGER ob_count AFTER UPDATE ON ob BEGIN UPDATE ob_changes SET n = n + 1; END;",
                    count(90)
                ),
            ),
            Mig::up("online_filled", "ALTER TABLE ob ADD COLUMN slug TEXT;")
                .down("ALTER TABLE ob DROP COLUMN slug;")
                .verify("SELECT id FROM ob WHERE slug IS NULL;")
                .toml(
                    "mode = \"online\"
                     step = [{ sql = \"up.sql\" }, { backfill = \"ob\", set = \"slug = lower(replace(title, ' ', '-'))\", where = \"slug IS NULL\", batch = 20 }, { verify = \"verify.sql\" }]",
                ),
        ],
    )
    .like("ALTER TABLE ob ADD COLUMN slug TEXT; UPDATE ob SET slug = lower(replace(title, ' ', '-'));")
    .halfway(|file| {
        if number(file, "SELECT count(*) FROM pragma_table_info('ob') WHERE name = 'slug'")? == 0 {
            return equal(said(file)?, 0);
        }
        let done = number(file, "SELECT count(slug) FROM ob WHERE slug = lower(replace(title, ' ', '-'))")?;
        equal(said(file)?, done).and(equal(number(file, "SELECT n FROM ob_changes")?, done)).and(equal(done, number(file, "SELECT count(slug) FROM ob")?))
    })
    .then(Order::RevertDownTo { version: 1 })
}

fn loaded_online() -> Feature {
    Feature::new(
        "load online",
        [
            Mig::up("load_made", "CREATE TABLE ol(id INTEGER PRIMARY KEY, word TEXT); INSERT INTO ol VALUES (3, 'mine'), (500, 'mine too');"),
            Mig::up("load_done", "").file("cards.ndjson", shipped(1..=60)).toml(
                "mode = \"online\"
                 step = [{ load = \"cards.ndjson\", into = \"ol\", key = [\"id\"], conflict = \"skip\", batch = 20 }]",
            ),
        ],
    )
    .like(&format!("INSERT OR IGNORE INTO ol SELECT i, 'word ' || i FROM {};", count(60)))
    .halfway(|file| equal(said(file)?, number(file, "SELECT count(*) - 2 FROM ol")?))
}

fn replaced_online() -> Feature {
    Feature::new(
        "load online in place of what is there",
        [
            Mig::up(
                "replace_made",
                format!("CREATE TABLE orr(id INTEGER PRIMARY KEY, word TEXT); INSERT INTO orr SELECT i, 'old' FROM {};", count(50)),
            ),
            Mig::up("replace_done", "").file("cards.ndjson", shipped(11..=50)).toml(
                "mode = \"online\"
                 step = [{ load = \"cards.ndjson\", into = \"orr\", key = [\"id\"], conflict = \"replace\", clear_existing = true, batch = 20 }]",
            ),
        ],
    )
    .like(&format!("DELETE FROM orr; INSERT INTO orr SELECT i, 'word ' || i FROM {} WHERE i > 10;", count(50)))
    .halfway(|file| {
        let (old, new) =
            (number(file, "SELECT count(*) FROM orr WHERE word = 'old'")?, number(file, "SELECT count(*) FROM orr WHERE word <> 'old'")?);
        equal(said(file)?, 50 - old + new).and(if old > 0 { equal(0, new) } else { Ok(()) })
    })
}

fn collected_online() -> Feature {
    Feature::new(
        "backfill online with rows that fail",
        [
            Mig::up(
                "collect_made",
                format!(
                    "CREATE TABLE oc(id INTEGER PRIMARY KEY, n INTEGER, half INTEGER CHECK (half <> 7)); INSERT INTO oc(id, n) SELECT i, i FROM {};",
                    count(50)
                ),
            ),
            Mig::up("collect_done", "").toml(
                "mode = \"online\"
                 step = [{ backfill = \"oc\", set = \"half = n / 2\", where = \"half IS NULL\", on_error = \"collect\", batch = 10 }]",
            ),
        ],
    )
    .like("UPDATE oc SET half = n / 2 WHERE n / 2 <> 7;")
    .halfway(|file| {
        equal(said(file)?, number(file, "SELECT count(half) FROM oc")?)
            .and(equal(number(file, "SELECT failed FROM _whimbrel_checkpoint")?, number(file, "SELECT count(*) FROM _whimbrel_failed_item")?))
    })
}

fn rebuilt_online() -> Feature {
    let shape = "CREATE TABLE rb(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body TEXT NOT NULL, above INTEGER REFERENCES rb(id)); CREATE INDEX rb_above ON rb(above);";
    let kept = "CREATE INDEX rb_title ON rb(title); CREATE TRIGGER rb_count AFTER INSERT ON rb BEGIN UPDATE rb_seen SET n = n + 1; END;";
    Feature::new(
        "rebuild online",
        [
            Mig::up(
                "rebuilt_made",
                format!(
                    "CREATE TABLE rb(id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT, body TEXT, above INTEGER REFERENCES rb(id));
                     CREATE TABLE rb_seen(n INTEGER); INSERT INTO rb_seen VALUES (0);
                     INSERT INTO rb SELECT i, 'Title ' || i, CASE WHEN i % 2 THEN 'body ' || i END, nullif(i / 3, 0) FROM {};
                     CREATE TABLE rb_child(rb INTEGER REFERENCES rb(id) ON DELETE CASCADE); INSERT INTO rb_child SELECT id FROM rb WHERE id % 5 = 0;
                     {kept}",
                    count(60)
                ),
            ),
            Mig::up("rebuilt_done", "").file("rb.sql", shape).verify("SELECT count(*) = 60 FROM rb;").toml(
                "mode = \"online\"
                 step = [{ rebuild = \"rb\", as = \"rb.sql\", values = { body = \"coalesce(body, '')\" }, batch = 20 }, { verify = \"verify.sql\" }]",
            ),
        ],
    )
    .like(&format!(
        "PRAGMA foreign_keys = OFF; CREATE TABLE rb_copy AS SELECT * FROM rb; DROP TABLE rb; {shape}
         INSERT INTO rb SELECT id, title, coalesce(body, ''), above FROM rb_copy; DROP TABLE rb_copy; {kept}"
    ))
    .halfway(|file| {
        // The application always has all of its rows, whichever table they are in, and none of its triggers fires.
        equal(60, number(file, "SELECT count(*) FROM rb WHERE title = 'Title ' || id")?)
            .and(equal(0, number(file, "SELECT n FROM rb_seen")?))
            .and(equal(12, number(file, "SELECT count(*) FROM rb_child")?))?;
        let side = number(file, "SELECT count(*) FROM sqlite_schema WHERE name = '_whimbrel_side_1'")?;
        let copied = if side == 1 {
            number(file, "SELECT count(*) FROM _whimbrel_side_1")?
        } else {
            number(file, "SELECT count(*) FROM rb WHERE body IS NOT NULL")?
        };
        equal(said(file)?, if side == 0 && copied < 60 { 0 } else { copied })
    })
}
