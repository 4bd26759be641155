//! Who was away for long: five versions behind, with thousands of edits that nobody has seen.

use std::{collections::BTreeMap, path::Path, time::Instant};

use rusqlite::{Connection, params};
use tempfile::TempDir;
use whimbrel_tests::{
    Device, Mig, Server, Wire,
    device::{list, one},
    wire::Mode,
};

use crate::{SOON, stage};

/// Rows that both devices have when one of them goes away.
const KNOWN: usize = 2_000;
/// Edits that nobody has seen.
const EDITS: usize = 10_000;

/// Six versions: the table, a renamed column, a dropped one, a split one, a computed one, and the table in another shape.
fn chain() -> Vec<Mig> {
    vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE person(id TEXT PRIMARY KEY NOT NULL, first TEXT, last TEXT, zip TEXT, age INTEGER, note TEXT);
             CREATE TABLE visit(id TEXT PRIMARY KEY NOT NULL, person TEXT REFERENCES person(id), at INTEGER)",
        )
        .toml("[sync.person]\nconflict = 'merge'\n[sync.visit]\n"),
        Mig::up("0002_given", "ALTER TABLE person RENAME COLUMN first TO given").toml("[[carry]]\ntable = 'person'\nrename = { first = 'given' }\n"),
        Mig::up("0003_no_zip", "ALTER TABLE person DROP COLUMN zip").toml("destructive = true\n"),
        Mig::up("0004_split", "ALTER TABLE person ADD COLUMN family TEXT; ALTER TABLE person ADD COLUMN suffix TEXT")
            .file("drop.sql", "ALTER TABLE person DROP COLUMN last")
            .toml(
                "mode = 'online'\ndestructive = true\n[[step]]\nsql = 'up.sql'\n[[step]]\nbackfill = 'person'\n\
                 set = \"family = substr(last, 1, instr(last, ' ') - 1), suffix = substr(last, instr(last, ' ') + 1)\"\n\
                 where = 'family IS NULL AND last IS NOT NULL'\n[[step]]\nsql = 'drop.sql'\n\
                 [[carry]]\ntable = 'person'\nsplit = { last = ['family', 'suffix'] }\n",
            ),
        Mig::up("0005_slug", "ALTER TABLE person ADD COLUMN slug TEXT").toml(
            "mode = 'online'\n[[step]]\nsql = 'up.sql'\n[[step]]\nbackfill = 'person'\nset = \"slug = lower(family || '-' || given)\"\n\
             where = 'slug IS NULL AND family IS NOT NULL AND given IS NOT NULL'\n",
        ),
        Mig::up("0006_shape", "")
            .file(
                "person.sql",
                "CREATE TABLE person(id TEXT PRIMARY KEY NOT NULL, slug TEXT, family TEXT NOT NULL, given TEXT NOT NULL, suffix TEXT,
                 age INTEGER CHECK (age >= 0), note TEXT) STRICT; CREATE INDEX person_slug ON person(slug);",
            )
            .toml("[[step]]\nrebuild = 'person'\nas = 'person.sql'\n"),
    ]
}

/// A row as the application that is away knows it.
#[derive(Clone, Debug)]
struct Person {
    first: String,
    last: String,
    zip: Option<String>,
    age: i64,
    note: Option<String>,
}

impl Person {
    fn new(number: usize, word: &str) -> Self {
        Self { first: format!("First{number}"), last: format!("Last{number} {word}"), zip: Some(format!("z{number}")), age: 20, note: None }
    }

    /// What becomes of it at the newest version, as a person would say from the chain, who has no engine.
    fn at_last(&self, id: &str) -> String {
        let (family, suffix) = self.last.split_once(' ').expect("two words");
        let slug = format!("{family}-{}", self.first).to_lowercase();
        [id, &slug, family, &self.first, suffix, &self.age.to_string(), self.note.as_deref().unwrap_or("-")].join("|")
    }
}

/// What the table says of it there.
const AT_LAST: &str =
    "SELECT id || '|' || slug || '|' || family || '|' || given || '|' || suffix || '|' || age || '|' || coalesce(note, '-') FROM person ORDER BY id";

/// The application's file at version 1, and beside it what it has to come to.
#[derive(Default)]
struct Away {
    rows: BTreeMap<String, Person>,
    /// Values of the dropped column that nobody else has: they have no place any more, and are kept.
    zips: BTreeMap<String, String>,
}

impl Away {
    fn insert(&mut self, app: &Connection, id: String, person: Person) {
        let Person { first, last, zip, age, note } = &person;
        app.execute("INSERT INTO person VALUES (?1, ?2, ?3, ?4, ?5, ?6)", params![id, first, last, zip, age, note]).unwrap();
        self.zips.extend(zip.clone().map(|zip| (id.clone(), zip)));
        self.rows.insert(id, person);
    }

    fn edit(&mut self, app: &Connection, id: &str, column: &str, value: &str) {
        app.execute(&format!("UPDATE person SET {column} = ?2 WHERE id = ?1"), [id, value]).unwrap();
        let person = self.rows.get_mut(id).expect("it is there");
        match column {
            "first" => person.first = value.to_owned(),
            "last" => person.last = value.to_owned(),
            "zip" => {
                person.zip = Some(value.to_owned());
                self.zips.insert(id.to_owned(), value.to_owned());
            }
            "age" => person.age = value.parse().expect("a number"),
            other => panic!("{other}"),
        }
    }

    fn delete(&mut self, app: &Connection, id: &str) {
        app.execute("DELETE FROM person WHERE id = ?1", [id]).unwrap();
        self.rows.remove(id);
        self.zips.remove(id);
    }

    /// So many edits, of all kinds, some of them of one row.
    fn edits(&mut self, app: &Connection, count: usize) {
        app.execute_batch("BEGIN").unwrap();
        for n in 0..count {
            let known = format!("known{:05}", (n * 7) % KNOWN);
            let new = format!("new{:05}", n / 10 * 10);
            match n % 10 {
                0 => self.insert(app, new, Person::new(n, "Jr")),
                1 => self.edit(app, &new, "last", &format!("Newer{n} Sr")),
                2 if n % 50 == 2 => self.delete(app, &new),
                2 | 3 => self.insert(app, format!("kept{n:05}"), Person::new(n, "III")),
                4 if n % 40 == 4 && self.rows.contains_key(&known) => self.delete(app, &known),
                at if self.rows.contains_key(&known) => {
                    // Each time around another column of the same row.
                    let (column, value) = match (at + n / KNOWN) % 5 {
                        0 => ("first", format!("Given{n}")),
                        1 => ("last", format!("Family{n} Suffix{n}")),
                        2 => ("zip", format!("unsent{n}")),
                        3 => ("age", n.to_string()),
                        _ => ("last", format!("Married{n} Suffix{n}")),
                    };
                    self.edit(app, &known, column, &value);
                }
                _ => self.insert(app, format!("kept{n:05}"), Person::new(n, "IV")),
            }
        }
        app.execute_batch("COMMIT").unwrap();
    }

    fn at_last(&self) -> Vec<String> {
        self.rows.iter().map(|(id, person)| person.at_last(id)).collect()
    }
}

fn open(path: &Path) -> Connection {
    let app = Connection::open(path).unwrap();
    app.busy_timeout(SOON).unwrap();
    app
}

fn device(stage: &TempDir, server: &Server, name: &str, url: &str) -> Device {
    let device = Device::new(stage.path(), name, url).database("notes.db", "notes");
    device.make("notes.db", "");
    device.enroll(&server.token("notes"));
    device.once_well();
    device
}

/// A device goes away at version 1, others go on to version 6, and it comes back with so many edits. `carried`: what it did
/// cannot go up before its migrations have run.
fn comes_back(count: usize, carried: bool) {
    let stage = stage();
    let server = Server::start(stage.path());
    server.publish("notes", &chain()[..1]);
    let wire = Wire::to(server.addr());
    let (a, b) = (device(&stage, &server, "a", &wire.url()), device(&stage, &server, "b", &server.url()));
    let (file, other) = (a.path("notes.db"), b.path("notes.db"));
    let mut away = Away::default();
    let app = open(&file);
    app.execute_batch("BEGIN").unwrap();
    for n in 0..KNOWN {
        away.insert(&app, format!("known{n:05}"), Person::new(n, "Jr"));
    }
    app.execute_batch("COMMIT").unwrap();
    a.once_well();
    b.once_well();
    // These are known everywhere: nobody has to keep them.
    away.zips.clear();
    wire.cut();

    server.publish("notes", &chain());
    b.once_well();
    assert_eq!(one::<u32>(&other, "SELECT max(version) FROM _whimbrel_migration WHERE status = 'completed'"), 6);
    // Others write too, in a column that it leaves alone, of rows that it does not delete.
    let others = "UPDATE person SET note = 'of b' WHERE id LIKE 'known%3'";
    open(&other).execute_batch(others).unwrap();
    b.once_well();
    away.edits(&app, count);
    app.execute_batch("INSERT INTO visit SELECT 'v' || id, id, 1 FROM person WHERE id LIKE 'new%'").unwrap();
    for (_, person) in away.rows.iter_mut().filter(|(id, _)| id.starts_with("known") && id.ends_with('3')) {
        person.note = Some("of b".to_owned());
    }
    drop(app);

    wire.set(if carried { Mode::Swallow("/api/sync/push") } else { Mode::Pass });
    let begun = Instant::now();
    if carried {
        a.once();
        assert_eq!(one::<u32>(&file, "SELECT max(version) FROM _whimbrel_migration WHERE status = 'completed'"), 6, "it waits for nobody");
        assert!(one::<u32>(&file, "SELECT unsent FROM _whimbrel_sync") > 0, "something got through");
        assert_eq!(list(&other, "SELECT id FROM person WHERE id LIKE 'new%' LIMIT 1"), [""; 0]);
        wire.mend();
    }
    a.once_well();
    let up = begun.elapsed();
    b.once_well();
    let both = begun.elapsed();
    // What the others did since is with who was away.
    a.once_well();
    println!(
        "{count} edits, five versions behind, {}: at the server after {up:.1?}, on the other device after {both:.1?}",
        if carried { "carried" } else { "sent before" }
    );

    let expected = away.at_last();
    let visits = "SELECT id FROM visit ORDER BY id";
    for (name, path) in [("a", &file), ("b", &other)] {
        let found = list(path, AT_LAST);
        let (lost, more): (Vec<_>, Vec<_>) = (
            expected.iter().filter(|row| found.binary_search(row).is_err()).collect(),
            found.iter().filter(|row| expected.binary_search(row).is_err()).collect(),
        );
        assert!(
            found == expected,
            "{name}: {} of {} rows differ: expected {:?}, found {:?}",
            lost.len().max(more.len()),
            expected.len(),
            &lost[..lost.len().min(5)],
            &more[..more.len().min(5)]
        );
        let waits = "SELECT unsent || ' ' || unfolded || ' ' || quarantined || ' ' || conflicts_open FROM _whimbrel_sync";
        assert_eq!(one::<String>(path, waits), "0 0 0 0", "{name}");
        assert_eq!(list(path, visits).len(), away.rows.keys().filter(|id| id.starts_with("new")).count(), "{name}");
    }
    assert_eq!(list(&file, visits), list(&other, visits));
    let archived = list(&file, "SELECT json_extract(key, '$[0]') || '=' || value FROM _whimbrel_archive WHERE column_name = 'zip' ORDER BY 1");
    let kept: Vec<String> = away.zips.iter().map(|(id, zip)| format!("{id}={zip}")).collect();
    assert_eq!(archived, if carried { kept } else { Vec::new() }, "values of the dropped column that were never sent");
    // Who comes new gets all of it from the server alone.
    let c = device(&stage, &server, "c", &server.url());
    c.once_well();
    assert_eq!(list(&c.path("notes.db"), AT_LAST), expected);
}

#[test]
fn a_device_five_versions_behind_brings_ten_thousand_edits_through_its_migrations_and_loses_none() {
    comes_back(EDITS, true);
}

#[test]
fn a_device_five_versions_behind_sends_ten_thousand_edits_as_it_knows_them_and_loses_none() {
    comes_back(EDITS, false);
}

#[test]
fn a_server_that_was_put_back_to_before_it_knew_a_database_is_told_of_it_and_gets_its_rows() {
    let stage = stage();
    let mut server = Server::start(stage.path());
    server.publish("notes", &[Mig::up("0001_init", "CREATE TABLE note(id TEXT PRIMARY KEY NOT NULL, title TEXT)").toml("[sync.note]\n")]);
    server.plan_all("notes");
    let device = |name: &str| {
        let device = Device::new(stage.path(), name, &server.url()).database("notes.db", "notes");
        device.make("notes.db", "SELECT 1");
        device.enroll(&server.token("notes"));
        device
    };
    let (a, b) = (device("a"), device("b"));
    let before = server.copy_store();
    a.once_well();
    let app = Connection::open(a.path("notes.db")).unwrap();
    app.execute("INSERT INTO note VALUES ('n', 'what nobody else has')", []).unwrap();
    a.once_well();
    server.put_store_back(&before);
    // Nothing changed here, so that there is nothing to tell, as far as the device knows.
    a.once_well();
    b.once_well();
    let title: String = Connection::open(b.path("notes.db")).unwrap().query_row("SELECT title FROM note", [], |row| row.get(0)).unwrap();
    assert_eq!(title, "what nobody else has");
}
