//! The second half: two devices that edit the same rows while they are offline, across the rename of a column.

use std::path::{Path, PathBuf};

use rusqlite::Connection;
use whimbrel_tests::{Device, Mig, Server, Wire, device::list, migrations, until};

use super::{LIMIT, publish, run, say, title};

/// Runs it on a server that is there.
pub(super) fn show(stage: &Path, server: &Server) {
    title("7. Rows: two devices, one list of tasks");
    let source = stage.join("task-migrations");
    let mut chain = vec![tasks()];
    migrations::write(&source, &chain);
    say("0001_tasks makes a table and says that its rows are exchanged:");
    for line in chain[0].toml.iter().flat_map(|toml| toml.lines()) {
        say(&format!("    {line}"));
    }
    publish(server, "tasks", &source);
    let (wires, devices): (Vec<Wire>, Vec<Device>) = ["laptop", "phone"]
        .map(|name| {
            let wire = Wire::to(server.addr());
            let device = Device::new(stage, name, &wire.url()).database("tasks.db", "tasks").polls("*/2 * * * * *");
            device.make("tasks.db", "CREATE TABLE app_setting(name TEXT PRIMARY KEY, value)");
            device.enroll(&server.token("tasks"));
            (wire, device)
        })
        .into_iter()
        .unzip();
    let mut daemons: Vec<_> = devices.iter().map(Device::start).collect();
    daemons.iter_mut().for_each(|daemon| daemon.until_settled(LIMIT, 1));
    let files: Vec<PathBuf> = devices.iter().map(|device| device.path("tasks.db")).collect();
    let write = |at: usize, sql: &str| {
        println!("\n  {}> {sql}", ["laptop", "phone"][at]);
        let app = Connection::open(&files[at]).expect("the database opens");
        app.busy_timeout(LIMIT).expect("a timeout can be set");
        app.execute_batch(sql).expect("the application writes");
    };
    let both = |sql: &str, rows: usize| {
        until(LIMIT, "both have the same rows", || {
            let (one, other) = (list(&files[0], sql), list(&files[1], sql));
            (one == other && one.len() == rows).then_some(one)
        })
    };
    write(0, "INSERT INTO task VALUES ('t1', 'Milk', 'open', 'at the corner shop')");
    both("SELECT id FROM task", 1);
    say("A moment later the phone has it too.");

    title("8. Cut both wires, edit on both, and rename a column meanwhile");
    wires.iter().for_each(Wire::cut);
    write(0, "UPDATE task SET title = 'Milk and bread', note = 'ask for the rye one' WHERE id = 't1'");
    write(1, "UPDATE task SET state = 'done', note = 'was closed' WHERE id = 't1'");
    write(1, "INSERT INTO task VALUES ('t2', 'Call the plumber', 'open', NULL)");
    chain.push(
        Mig::up("0002_rename", "ALTER TABLE task RENAME COLUMN title TO what;\n")
            .down("ALTER TABLE task RENAME COLUMN what TO title;\n")
            .toml("[[carry]]                 # where edits go that are not sent yet\ntable  = \"task\"\nrename = { title = \"what\" }\n"),
    );
    migrations::write(&source, &chain);
    publish(server, "tasks", &source);
    say("The publisher knows nothing of these edits, nor the devices of the rename.");

    title("9. Mend them: schema first, then rows");
    wires[1].mend();
    daemons[1].until_settled(LIMIT, 2);
    until(LIMIT, "the phone has sent its edits", || {
        (list(&files[1], "SELECT CAST(unsent + unfolded AS TEXT) FROM _whimbrel_sync") == ["0"]).then_some(())
    });
    say("The phone is back first.");
    wires[0].mend();
    daemons[0].until_settled(LIMIT, 2);
    for row in both("SELECT id || ' | ' || what || ' | ' || state || ' | ' || coalesce(note, '') FROM task ORDER BY id", 2) {
        say(&format!("    {row}"));
    }
    say("The laptop's title and the phone's state are both there, under the new name. Both had edited the note: the later edit");
    say("stands, and the laptop keeps its own:");
    run(&devices[0], &["conflicts", "list", "--all"]);
    run(&devices[0], &["sync", "--verify"]);
    daemons.into_iter().for_each(|daemon| daemon.stop());
}

fn tasks() -> Mig {
    Mig::up("0001_tasks", "CREATE TABLE task(id TEXT PRIMARY KEY NOT NULL, title TEXT NOT NULL, state TEXT NOT NULL, note TEXT);\n")
        .down("DROP TABLE task;\n")
        .toml("[sync.task]\nconflict = \"merge\"      # column by column, the later edit of one\nkeys = \"global\"         # the same id is the same task\n")
}
