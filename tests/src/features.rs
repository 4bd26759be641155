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
    /// Where a migration may be half done between two of its transactions: whether this half-way state is a right one.
    pub halfway: Option<Halfway>,
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

impl Part {
    /// One whose steps are not statements.
    pub fn like(mig: Mig, plain: &str) -> Self {
        Self { mig, plain: plain.to_owned() }
    }
}

impl Feature {
    fn new<const N: usize>(name: &'static str, chain: [Mig; N]) -> Self {
        let chain = chain.map(Part::from).into();
        Self { name, chain, orders: vec![Order::ApplyUpTo { version: N as u32 }], grouping: false, fails: false, halfway: None }
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
    vec![schema(), rebuild(), data(), full_text(), verified(), refuted(), broken_off(), grouped(), cascading()]
}

/// The chains of all features that succeed, one after the other. The tables of each have names of their own.
pub fn whole() -> Feature {
    let mut whole = Feature::new("all of them in one chain", []);
    for feature in all().into_iter().filter(|f| !f.fails) {
        whole.halfway = whole.halfway.or(feature.halfway);
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
