//! One thing that a migration does to edits, each.

use whimbrel::{store::outbox::Deed, sync::shape::Mode};
use whimbrel_shared::status::Operation;

use crate::bed::{Answer, Bed, Published, files, publish};

const PERSON: &str = "CREATE TABLE person(id TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip TEXT, street TEXT);";

/// A chain of [`PERSON`], which exchanges rows, and one version after it.
fn second(up: &str, down: &str, toml: &str, more: &[(&str, &str)]) -> Published {
    let mut all = files(&[("1_a/up.sql", PERSON), ("1_a/migration.toml", "[sync.person]"), ("2_b/up.sql", up), ("2_b/migration.toml", toml)]);
    if !down.is_empty() {
        all.extend(files(&[("2_b/down.sql", down)]));
    }
    all.extend(files(more));
    publish(&all)
}

/// Three rows that the server has; then b is edited in all its columns, c is deleted, and d is new.
fn edited(published: &Published, mode: Mode) -> Bed<'_> {
    let mut bed = Bed::new(published);
    bed.go(Operation::Apply, 1, 1);
    bed.capture(1, mode);
    let insert = "INSERT INTO person VALUES ('a', 'A1', 'A2', 'A3', 'A4'), ('b', 'B1', 'B2', 'B3', 'B4'), ('c', 'C1', 'C2', 'C3', 'C4')";
    bed.app().execute_batch(insert).unwrap();
    bed.acknowledge();
    assert!(bed.dirty().is_empty());
    bed.app()
        .execute_batch(
            "UPDATE person SET first = 'b1', last = 'b2', zip = 'b3', street = 'b4' WHERE id = 'b'; DELETE FROM person WHERE id = 'c';
             INSERT INTO person VALUES ('d', 'd1', 'd2', 'd3', 'd4')",
        )
        .unwrap();
    bed
}

/// What waits, in words: table, key, column, what becomes of it, value.
fn said(bed: &Bed<'_>) -> Vec<String> {
    let word = |deed| match deed {
        Deed::Insert => "new",
        Deed::Edit => "edit",
        Deed::Delete => "gone",
    };
    let line = |((table, key, column), dirt): (crate::bed::Cell, crate::bed::Dirt)| {
        format!("{table} {} {} {} {}", key.join(","), column.unwrap_or_default(), word(dirt.deed), dirt.value.unwrap_or_default())
    };
    bed.dirty().into_iter().map(line).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

fn archived(bed: &Bed<'_>) -> Vec<String> {
    bed.archive().into_iter().map(|(t, k, c, v)| format!("{t} {k} {} {}", c.unwrap_or_default(), v.unwrap_or_default())).collect()
}

/// What waits after version 2; and that neither looking through all tables nor going on makes an edit of what it wrote.
fn check(published: &Published, waits: &[&str], archive: &[&str]) {
    for mode in [Mode::Mask, Mode::KeyOnly] {
        let bed = edited(published, mode);
        bed.go(Operation::Apply, 2, 2);
        assert_eq!(said(&bed), waits, "{mode:?}");
        assert_eq!(archived(&bed), archive, "{mode:?}");
        bed.sweep_all();
        assert_eq!(said(&bed), waits, "{mode:?}, looked through");
        assert_eq!(bed.value::<i64>("SELECT count(*) FROM sqlite_schema WHERE name = '_whimbrel_keys'"), 0);
        assert_eq!(bed.value::<i64>("SELECT count(*) FROM _whimbrel_outbox WHERE tab < 0"), 0);
    }
}

#[test]
fn a_renamed_column_and_a_renamed_table_keep_their_edits() {
    let published = second(
        "ALTER TABLE person RENAME first TO given; ALTER TABLE person RENAME TO people",
        "",
        "[[carry]]\ntable = 'person'\nto = 'people'\nrename = { first = 'given' }",
        &[],
    );
    let waits = [
        "people b given edit b1",
        "people b last edit b2",
        "people b street edit b4",
        "people b zip edit b3",
        "people c gone",
        "people d given new d1",
        "people d last new d2",
        "people d street new d4",
        "people d zip new d3",
    ];
    check(&published, &waits, &[]);
}

#[test]
fn the_values_of_a_column_that_goes_are_archived() {
    let published = second("ALTER TABLE person DROP zip", "", "destructive = true", &[]);
    let waits = [
        "person b first edit b1",
        "person b last edit b2",
        "person b street edit b4",
        "person c gone",
        "person d first new d1",
        "person d last new d2",
        "person d street new d4",
    ];
    check(&published, &waits, &["person [\"b\"] zip b3", "person [\"d\"] zip d3"]);
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\ndrop = { zip = 'discard' }";
    check(&second("ALTER TABLE person DROP zip", "", toml, &[]), &waits, &[]);
}

#[test]
fn a_migration_waits_for_edits_that_it_may_not_leave_behind() {
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\ndrop = { zip = 'block' }";
    let published = second("ALTER TABLE person DROP zip", "", toml, &[]);
    let mut bed = edited(&published, Mode::Mask);
    let before = bed.dirty();
    let failure = bed.run(Operation::Apply, 2, 2).stopped.unwrap().failure;
    assert_eq!(failure.code, "unsent_edits");
    assert!(
        failure.message.contains("2 rows") && failure.message.contains("person [\"b\"]: zip") && failure.message.contains("[\"d\"]"),
        "{failure:?}"
    );
    assert_eq!(bed.dirty(), before);
    assert_eq!(bed.value::<i64>("SELECT count(*) FROM pragma_table_info('person') WHERE name = 'zip'"), 1);
    // Nothing was half done, and what is edited now is noted.
    bed.app().execute_batch("UPDATE person SET last = 'later' WHERE id = 'a'").unwrap();
    assert_eq!(bed.dirty().len(), before.len() + 1);
    bed.acknowledge();
    bed.go(Operation::Apply, 2, 2);
    assert!(bed.dirty().is_empty() && bed.archive().is_empty());
}

const SPLIT_UP: &str = "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, first TEXT, family TEXT, suffix TEXT, zip TEXT, street TEXT);
    INSERT INTO n SELECT id, first, 'f-' || last, 's-' || last, zip, street FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";
const SPLIT_DOWN: &str = "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip TEXT, street TEXT);
    INSERT INTO n SELECT id, first, substr(family, 3), zip, street FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";

#[test]
fn an_edit_of_a_column_that_is_split_is_one_of_each_part_with_its_base_and_stamp() {
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\nsplit = { last = ['family', 'suffix'] }\n[sync.person]\nmin_schema = 'this'";
    let published = second(SPLIT_UP, SPLIT_DOWN, toml, &[]);
    let waits = [
        "person b family edit f-b2",
        "person b first edit b1",
        "person b street edit b4",
        "person b suffix edit s-b2",
        "person b zip edit b3",
        "person c gone",
        "person d family new f-d2",
        "person d first new d1",
        "person d street new d4",
        "person d suffix new s-d2",
        "person d zip new d3",
    ];
    check(&published, &waits, &[]);
    let mut bed = edited(&published, Mode::Mask);
    let cell = |table: &str, column: &str| (table.to_owned(), vec!["b".to_owned()], Some(column.to_owned()));
    bed.exchange(&mut || Answer::NotSent);
    let before = bed.dirty();
    let source = before[&cell("person", "last")].edit.clone();
    assert_eq!(source.base, Some(2));
    bed.go(Operation::Apply, 2, 2);
    let after = bed.dirty();
    assert_eq!([&after[&cell("person", "family")].edit, &after[&cell("person", "suffix")].edit], [&source, &source]);
    bed.app().execute_batch("UPDATE person SET suffix = 'later' WHERE id = 'a'; UPDATE person SET suffix = 'later' WHERE id = 'b'").unwrap();
    let later = bed.dirty()[&cell("person", "suffix")].edit.clone();
    // And back: what became of the parts is what waits of the whole, with the latest stamp.
    bed.go(Operation::Revert, 2, 2);
    let back = bed.dirty();
    let last = &back[&cell("person", "last")];
    assert_eq!((last.value.as_deref(), last.edit.stamp.seq, last.edit.base), (Some("b2"), later.stamp.seq, source.base));
    assert_eq!(back[&("person".to_owned(), vec!["a".to_owned()], Some("last".to_owned()))].value.as_deref(), Some("A2"));
    assert_eq!(back.len(), before.len() + 1, "{back:#?}");
    bed.sweep_all();
    assert_eq!(bed.dirty(), back);
}

#[test]
fn where_columns_are_merged_the_latest_stamp_counts() {
    let up = "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, name TEXT, zip TEXT, street TEXT);
        INSERT INTO n SELECT id, first || ' ' || last, zip, street FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\nmerge = { name = ['first', 'last'] }\n[sync.person]\nmin_schema = 'this'";
    let published = second(up, "", toml, &[]);
    let bed = edited(&published, Mode::Mask);
    bed.app().execute_batch("UPDATE person SET first = 'b1 again' WHERE id = 'b'; UPDATE person SET last = 'a2' WHERE id = 'a'").unwrap();
    let before = bed.dirty();
    bed.go(Operation::Apply, 2, 2);
    let after = bed.dirty();
    let of = |dirty: &std::collections::BTreeMap<crate::bed::Cell, crate::bed::Dirt>, key: &str, column: &str| {
        dirty[&("person".to_owned(), vec![key.to_owned()], Some(column.to_owned()))].clone()
    };
    assert_eq!(of(&after, "b", "name").edit.stamp.seq, of(&before, "b", "first").edit.stamp.seq);
    assert_eq!(of(&after, "b", "name").value.as_deref(), Some("b1 again b2"));
    assert_eq!(of(&after, "a", "name").edit.stamp.seq, of(&before, "a", "last").edit.stamp.seq);
    // first and last of b and d, and last of a, became one each.
    assert_eq!(after.len(), before.len() - 2);
    bed.sweep_all();
    assert_eq!(bed.dirty(), after);
}

#[test]
fn a_part_that_moves_into_a_table_of_its_own_takes_its_edits_along() {
    let up = "CREATE TABLE place(person TEXT NOT NULL PRIMARY KEY, road TEXT); INSERT INTO place SELECT id, street FROM person; ALTER TABLE person DROP street";
    let down =
        "ALTER TABLE person ADD street TEXT; UPDATE person SET street = (SELECT road FROM place WHERE place.person = person.id); DROP TABLE place";
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\n[carry.into.place]\nkey = { person = 'id' }\ncolumns = { street = 'road' }\n[sync.place]\n[sync.person]\nmin_schema = 'this'";
    let published = second(up, down, toml, &[]);
    let waits = [
        "person b first edit b1",
        "person b last edit b2",
        "person b zip edit b3",
        "person c gone",
        "person d first new d1",
        "person d last new d2",
        "person d zip new d3",
        "place b road edit b4",
        "place c gone",
        "place d road new d4",
    ];
    check(&published, &waits, &[]);
    let bed = edited(&published, Mode::Mask);
    let before = said(&bed);
    bed.go(Operation::Apply, 2, 2);
    bed.go(Operation::Revert, 2, 2);
    assert_eq!(said(&bed), before);
    bed.sweep_all();
    assert_eq!(said(&bed), before);
}

#[test]
fn a_table_that_goes_leaves_its_unsent_values_in_the_archive() {
    let published = second("DROP TABLE person", "", "destructive = true", &[]);
    let all: Vec<String> = [("b", "b"), ("d", "d")]
        .iter()
        .flat_map(|(key, value)| [("first", 1), ("last", 2), ("street", 4), ("zip", 3)].map(|(c, n)| format!("person [\"{key}\"] {c} {value}{n}")))
        .collect();
    let mut archive: Vec<&str> = all.iter().map(String::as_str).collect();
    archive.insert(4, "person [\"c\"]  ");
    check(&published, &[], &archive);
}

#[test]
fn rows_with_new_keys_keep_their_edits_and_what_the_server_has_of_them() {
    let up = "CREATE TABLE n(uuid TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip TEXT, street TEXT);
        INSERT INTO n SELECT 'u-' || id, first, last, zip, street FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";
    let down = "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip TEXT, street TEXT);
        INSERT INTO n SELECT substr(uuid, 3), first, last, zip, street FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";
    let toml = "destructive = true\n[[carry]]\ntable = 'person'\nkey = { uuid = \"'u-' || id\" }\ndrop = { id = 'discard' }\n[sync.person]\nmin_schema = 'this'";
    let published = second(up, down, toml, &[]);
    let waits = [
        "person u-b first edit b1",
        "person u-b last edit b2",
        "person u-b street edit b4",
        "person u-b zip edit b3",
        "person u-c gone",
        "person u-d first new d1",
        "person u-d last new d2",
        "person u-d street new d4",
        "person u-d zip new d3",
    ];
    check(&published, &waits, &[]);
    let bed = edited(&published, Mode::Mask);
    let before = said(&bed);
    bed.go(Operation::Apply, 2, 2);
    bed.go(Operation::Revert, 2, 2);
    let after = said(&bed);
    // Whose key cannot be told below, because the row is gone, is archived.
    assert_eq!(after, before.into_iter().filter(|line| line != "person c gone").collect::<Vec<_>>());
    assert_eq!(archived(&bed), ["person [\"u-c\"]  "]);
}

#[test]
fn what_a_new_type_makes_of_the_values_is_no_edit() {
    let up = "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, first TEXT, last TEXT, zip INTEGER, street TEXT);
        INSERT INTO n SELECT * FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;";
    let published = second(up, "", "destructive = true", &[]);
    let mut bed = Bed::new(&published);
    bed.go(Operation::Apply, 1, 1);
    bed.capture(1, Mode::KeyOnly);
    bed.app().execute_batch("INSERT INTO person VALUES ('a', '1', '2', '3', '4'), ('b', '1', '2', '3', '4')").unwrap();
    bed.acknowledge();
    bed.app().execute_batch("UPDATE person SET zip = '5' WHERE id = 'b'").unwrap();
    bed.go(Operation::Apply, 2, 2);
    assert_eq!(said(&bed), ["person b zip edit 5"]);
    bed.sweep_all();
    bed.app().execute_batch("UPDATE person SET zip = zip").unwrap();
    assert_eq!(said(&bed), ["person b zip edit 5"]);
}

#[test]
fn a_new_column_and_what_a_backfill_computes_are_no_edits() {
    let toml = "[[step]]\nsql = 'up.sql'\n[[step]]\nbackfill = 'person'\nset = \"slug = lower(first)\"\nwhere = 'slug IS NULL AND first IS NOT NULL'";
    for mode in ["", "mode = 'online'\n"] {
        let published = second("ALTER TABLE person ADD slug TEXT; ALTER TABLE person ADD n INT DEFAULT 7", "", &format!("{mode}{toml}"), &[]);
        let bed = edited(&published, Mode::Mask);
        // The application's own trigger fires for what is written row by row, and what it does is no edit either.
        bed.app().execute_batch("CREATE TRIGGER own AFTER UPDATE OF last ON person BEGIN SELECT 1; END").unwrap();
        let before = said(&bed);
        bed.go(Operation::Apply, 2, 2);
        assert_eq!(said(&bed), before, "{mode}");
        bed.sweep_all();
        // A row that is new is sent as a whole.
        let whole = ["person d n new 7", "person d slug new d1"];
        assert_eq!(said(&bed).into_iter().filter(|line| !whole.contains(&line.as_str())).collect::<Vec<_>>(), before, "{mode}");
        let before = said(&bed);
        bed.app().execute_batch("UPDATE person SET slug = 'mine' WHERE id = 'a'").unwrap();
        let with: Vec<String> = said(&bed).into_iter().filter(|line| !before.contains(line)).collect();
        assert_eq!(with, ["person a slug edit mine"], "{mode}");
    }
}

#[test]
fn a_file_that_exchanges_no_rows_is_not_touched_by_any_of_it() {
    let published =
        publish(&files(&[("1_a/up.sql", PERSON), ("2_b/up.sql", "ALTER TABLE person DROP zip"), ("2_b/migration.toml", "destructive = true")]));
    let bed = Bed::new(&published);
    bed.go(Operation::Apply, 1, 2);
    let ours = "SELECT count(*) FROM sqlite_schema WHERE name LIKE '\\_whimbrel\\_capture%' ESCAPE '\\' OR name = '_whimbrel_journal'";
    assert_eq!(bed.value::<i64>(ours), 0);
}
