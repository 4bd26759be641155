//! Column ids from the publisher to the device: given once, served, kept, and never given otherwise.

use std::fs;

use serde_json::{Value, json};
use whimbrel_tests::{Mig, device::list, migrations};

use crate::{SOON, pair};

/// What each version does to ids, oldest first: the map as the device folds it is these, one on top of the other.
fn changes(targets: &Value) -> Vec<String> {
    let mut entries: Vec<&Value> = targets["targets"].as_object().unwrap().values().collect();
    entries.sort_by_key(|entry| entry["custom"]["version"].as_u64());
    entries.iter().map(|entry| entry["custom"]["columns"].to_string()).collect()
}

#[test]
fn ids_are_signed_served_and_kept_through_a_rename_a_drop_a_split_and_a_renamed_table_and_no_revision_gives_others() {
    let stage = crate::stage();
    let (server, device) = pair(&stage, "");
    let folder = stage.path().join("migrations");
    let publish = |chain: &[Mig], more: &[&str]| {
        let _ = fs::remove_dir_all(&folder);
        migrations::write(&folder, chain);
        let output = server.try_publish_with("notes", &folder, more);
        (output.status.success(), format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
    };
    let well = |chain: &[Mig]| {
        let (published, said) = publish(chain, &[]);
        assert!(published, "{said}");
        said
    };
    let mut chain = vec![
        Mig::up("0001_init", "CREATE TABLE person(id TEXT NOT NULL PRIMARY KEY, first TEXT, name TEXT, zip TEXT);")
            .toml("[sync.person]\nconflict = \"merge\"\n"),
        Mig::up("0002_given", "ALTER TABLE person RENAME first TO given; ALTER TABLE person DROP zip;").toml("destructive = true\n"),
    ];
    // What edits need to know is asked for, with the text to write.
    let (published, said) = publish(&chain, &[]);
    assert!(!published && said.contains("error[WB036]") && said.contains("rename = { first = \"given\" }"), "{said}");
    chain[1] =
        chain[1].clone().toml("destructive = true\n[[carry]]\ntable = \"person\"\nrename = { first = \"given\" }\ndrop = { zip = \"archive\" }\n");
    well(&chain);
    device.once_well();

    chain.push(
        Mig::up("0003_split", "ALTER TABLE person ADD family TEXT; ALTER TABLE person ADD suffix TEXT;")
            .toml(
                "mode = \"online\"\ndestructive = true\n[[step]]\nsql = \"up.sql\"\n[[step]]\nbackfill = \"person\"\nset = \"family = name, suffix = ''\"\nwhere = \"suffix IS NULL\"\n[[step]]\nsql = \"end.sql\"\n[[carry]]\ntable = \"person\"\nsplit = { name = [\"family\", \"suffix\"] }\n",
            )
            .file("end.sql", "ALTER TABLE person DROP name;"),
    );
    chain.push(Mig::up("0004_people", "ALTER TABLE person RENAME TO people;").toml("[[carry]]\ntable = \"person\"\nto = \"people\"\n"));
    well(&chain);
    assert!(well(&chain).contains("nothing new"));
    device.once_well();

    let served: Value = serde_json::from_slice(&server.get_repository("notes")).unwrap();
    let want = [
        r#"{"made":[[1,"person",[[1,"id"],[2,"first"],[3,"name"],[4,"zip"]]]]}"#,
        r#"{"made":[[1,"person",[[1,"id"],[2,"given"],[3,"name"]]]]}"#,
        r#"{"made":[[1,"person",[[1,"id"],[2,"given"],[5,"family"],[6,"suffix"]]]]}"#,
        r#"{"made":[[1,"people",[[1,"id"],[2,"given"],[5,"family"],[6,"suffix"]]]]}"#,
    ];
    assert_eq!(changes(&served), want);
    let first = &served["targets"]["0001_init.r1.json"]["custom"]["sync"]["tables"][0];
    assert_eq!(*first, json!({ "table": 1, "direction": "both", "conflict": "merge", "key": [[1, "binary"]] }));
    let kept = list(&device.state().join("device.db"), "SELECT json_extract(entry, '$.custom.columns') FROM target ORDER BY version");
    assert_eq!(kept, want);

    // The same schema with other ids is another thing.
    let mut other = chain.clone();
    other[1] = Mig::up("0002_given", "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, given TEXT, name TEXT); INSERT INTO n SELECT id, NULL, name FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;")
        .toml("destructive = true\n[[carry]]\ntable = \"person\"\ndrop = { first = \"discard\", zip = \"archive\" }\n");
    let (published, said) = publish(&other, &["--revise", "0002_given"]);
    assert!(!published && said.contains("person.given has id 2 and would have 5"), "{said}");
    // A revision that ends in the same ids is one.
    other[1] = Mig::up("0002_given", "CREATE TABLE n(id TEXT NOT NULL PRIMARY KEY, given TEXT, name TEXT); INSERT INTO n SELECT id, first, name FROM person; DROP TABLE person; ALTER TABLE n RENAME TO person;")
        .toml("destructive = true\n[[carry]]\ntable = \"person\"\nrename = { first = \"given\" }\ndrop = { zip = \"archive\" }\n");
    let (published, said) = publish(&other, &["--revise", "0002_given"]);
    assert!(published && said.contains("0002_given, revision 2"), "{said}");
    device.once_well();
    let both = list(&device.state().join("device.db"), "SELECT json_extract(entry, '$.custom.columns') FROM target WHERE version = 2");
    assert_eq!(both, [want[1], want[1]]);
}

#[test]
fn a_chain_without_ids_says_why_its_rows_cannot_be_exchanged() {
    let stage = crate::stage();
    let (server, device) = pair(&stage, "");
    server.publish_unchecked("notes", &[Mig::up("0001_init", "CREATE TABLE notes(id TEXT PRIMARY KEY);")]);
    let mut daemon = device.start();
    daemon.until_at(SOON, 1);
    let said = daemon.status()["databases"][0]["no_rows"].to_string();
    assert!(said.contains("version 1 was published without column ids"), "{said}");
    daemon.stop();
}

#[test]
fn a_server_that_gives_other_ids_for_what_was_accepted_is_refused_and_the_accepted_ones_stay() {
    let stage = crate::stage();
    let (server, device) = pair(&stage, "");
    let folder = stage.path().join("migrations");
    migrations::write(&folder, &[Mig::up("0001_init", "CREATE TABLE notes(id TEXT NOT NULL PRIMARY KEY);").toml("[sync.notes]\n")]);
    server.publish_folder("notes", &folder);
    device.once_well();
    let database = device.state().join("device.db");
    let kept = list(&database, "SELECT entry FROM target");
    // As if the server had lost its store and somebody had made the chain anew.
    let store = rusqlite::Connection::open(&database).unwrap();
    store.execute("UPDATE target SET entry = replace(entry, '[[1,\"notes\",[[1,', '[[1,\"notes\",[[2,')", []).unwrap();
    store.execute("UPDATE target SET entry = replace(entry, '\"key\":[[1,', '\"key\":[[2,')", []).unwrap();
    assert_ne!(list(&database, "SELECT entry FROM target"), kept);
    drop(store);
    migrations::write(&folder, &[Mig::up("0002_more", "CREATE TABLE tags(id TEXT NOT NULL PRIMARY KEY);")]);
    server.publish_folder("notes", &folder);
    let outcome = device.run(&["run", "--once"]);
    let said = outcome.said();
    assert!(said.contains("they are not those that were accepted"), "{said}");
    assert_eq!(list(&database, "SELECT count(*) || '' FROM target"), ["1"]);
}
