//! The chain of the simulator, and what each of its versions is, said a second time: by tables and columns as an application
//! knows them, and by what became of them. Everything that is checked is checked against this.

use crate::Mig;

/// The newest version.
pub const NEWEST: u32 = 4;
/// The version from which on older ones' edits of `line` wait.
pub const SPLIT: u32 = 3;

/// A column that holds tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// What it is called.
    pub name: &'static str,
    /// What the simulator calls it, whatever it is called.
    pub is: &'static str,
    /// The column whose values it had when it came.
    pub was: Option<&'static str>,
    /// Whether it has a type, so that it holds nothing but text.
    pub typed: bool,
}

/// One table of a version.
#[derive(Clone, Debug)]
pub struct Table {
    /// What it is called.
    pub name: &'static str,
    /// What the simulator calls it, whatever it is called.
    pub is: &'static str,
    /// The columns of its key.
    pub key: &'static [&'static str],
    /// The columns that hold tokens.
    pub holds: Vec<Held>,
    /// Its unique set, but for the key.
    pub unique: &'static [&'static str],
    /// The column that refers to another table, and what the simulator calls that.
    pub parent: Option<(&'static str, &'static str)>,
    /// Columns that the server need not have been told of every row.
    pub unsaid: &'static [&'static str],
}

fn table(is: &'static str, key: &'static [&'static str], unique: &'static [&'static str], parent: Option<(&'static str, &'static str)>) -> Table {
    let holds = |name| Held { name, is: name, was: None, typed: name == "b" };
    Table { name: is, is, key, holds: vec![holds("a"), holds("b")], unique, parent, unsaid: &[] }
}

/// The tables of a version. In the first: one for each strategy.
pub fn tables(version: u32) -> Vec<Table> {
    let mut doc = table("doc", &["id"], &["code"], None);
    let mut part = table("part", &["id"], &[], Some(("doc", "doc")));
    let mut item = table("item", &["id"], &["slot"], None);
    let mut line = table("line", &["id"], &[], Some(("item", "item")));
    let mut tally = table("tally", &["k1", "k2"], &["u", "v"], None);
    let text = |name, was| Held { name, is: name, was, typed: true };
    if version >= 2 {
        doc.holds[0].name = "title";
        part.name = "piece";
        item.holds.push(text("c", None));
        item.unsaid = &["c"];
    }
    if version >= SPLIT {
        tally.holds.pop();
        line.holds.pop();
        line.holds.extend([text("head", Some("b")), text("tail", Some("b"))]);
    }
    let mut all = vec![doc, part, item, line, tally];
    if version >= 4 {
        all.push(table("memo", &["id"], &[], Some(("doc", "doc"))));
    }
    all
}

const FIRST: &str = "CREATE TABLE doc(id TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, a, b TEXT, code TEXT UNIQUE);
CREATE TABLE part(id TEXT PRIMARY KEY NOT NULL, doc TEXT COLLATE NOCASE REFERENCES doc(id) ON DELETE CASCADE ON UPDATE CASCADE, a, b TEXT);
CREATE TABLE item(id INTEGER PRIMARY KEY, a, b TEXT, slot INTEGER UNIQUE);
CREATE TABLE line(id INTEGER PRIMARY KEY, item INTEGER REFERENCES item(id) ON DELETE SET NULL ON UPDATE CASCADE, a, b TEXT);
CREATE TABLE tally(k1 TEXT NOT NULL, k2 INTEGER NOT NULL, a, b TEXT, u INTEGER, v INTEGER, PRIMARY KEY(k1, k2), UNIQUE(u, v)) WITHOUT ROWID";

const FIRST_SETTINGS: &str = r#"
[sync.doc]
conflict = "keep-newest"
keys = "global"
[sync.part]
conflict = "merge"
keys = "global"
[sync.item]
conflict = "keep-oldest"
keys = "renumber"
[sync.line]
conflict = "server-wins"
keys = "renumber"
[sync.tally]
conflict = "client-wins"
keys = "global"
"#;

const NAMES: &str = "ALTER TABLE doc RENAME COLUMN a TO title;
ALTER TABLE part RENAME TO piece;
ALTER TABLE item ADD COLUMN c TEXT DEFAULT 'said by nobody'";

const NAMES_SETTINGS: &str = r#"
[[carry]]
table = "doc"
rename = { a = "title" }
[[carry]]
table = "part"
to = "piece"
"#;

const PARTS: &str = "ALTER TABLE tally DROP COLUMN b;
ALTER TABLE line ADD COLUMN head TEXT;
ALTER TABLE line ADD COLUMN tail TEXT";

const PARTS_SETTINGS: &str = r#"
[[step]]
sql = "up.sql"
[[step]]
backfill = "line"
set = "head = b, tail = b"
where = "head IS NULL AND b IS NOT NULL"
[[step]]
sql = "whole.sql"
[sync.line]
min_schema = "this"
[[carry]]
table = "tally"
drop = { b = "archive" }
[[carry]]
table = "line"
split = { b = ["head", "tail"] }
"#;

const MORE: &str =
    "CREATE TABLE memo(id TEXT PRIMARY KEY NOT NULL, doc TEXT COLLATE NOCASE REFERENCES doc(id) ON DELETE CASCADE ON UPDATE CASCADE, a, b TEXT)";

const MORE_SETTINGS: &str = r#"
[[step]]
sql = "up.sql"
[[step]]
rebuild = "item"
as = "item.sql"
[sync.memo]
conflict = "merge"
keys = "global"
"#;

const ITEM: &str = "CREATE TABLE item(id INTEGER PRIMARY KEY, slot INTEGER UNIQUE CHECK (slot > -1), c TEXT DEFAULT 'said by nobody', b TEXT, a)";

/// The chain up to a version.
pub fn chain(version: u32) -> Vec<Mig> {
    let mut chain = vec![
        Mig::up("0001_first", FIRST).toml(FIRST_SETTINGS),
        Mig::up("0002_names", NAMES).toml(NAMES_SETTINGS),
        Mig::up("0003_parts", PARTS).toml(PARTS_SETTINGS).file("whole.sql", "ALTER TABLE line DROP COLUMN b"),
        Mig::up("0004_more", MORE).toml(MORE_SETTINGS).file("item.sql", ITEM),
    ];
    chain.truncate(version as usize);
    chain
}
