//! Fixed values for goldens: a device on which everything that can be shown is there to see.

use std::collections::BTreeMap;

use whimbrel_shared::{
    ids::{ClientId, DeviceId, Digest, EventId},
    protocol::{
        poll::Order,
        state::{HealthItem, Severity},
    },
    remedy::{here, operator, wait},
    rows::{CodeCount, NamedItem, RowReport},
    status::{AskedBy, Event, EventKind, Failure, FailureClass, Operation, Status},
    value::Value,
};

use super::look::Look;
use crate::{
    control::protocol::{
        AdoptView, AdoptedView, BackupView, Check, ConflictColumn, ConflictView, DaemonView, DatabaseView, Detached, FailedItemView,
        MigrationFailure, MigrationView, PlanView, PlannedMigration, RowsDone, RowsMoved, RowsView, STATUS_SCHEMA, ServerView, Snapshot, Summary,
        SummaryError, TablesView, TrackerView, WaitingColumn, WaitingView, WouldAdopt,
    },
    migrate::{
        backup::{Backup, BackupError, Of, Reason},
        live::{Phase, Picture},
        rehearse::{Rehearsal, Rehearsed},
        tables::TableSize,
    },
    sync::{
        decide::Choice,
        detach::Left,
        standing::{Standing, TableStanding},
        verify::VerifiedTable,
    },
};

/// 2026-11-03 14:05:09 UTC.
pub(crate) const NOW_MS: i64 = 1_793_714_709_000;

pub(crate) fn look() -> Look {
    Look::plain(NOW_MS)
}

fn client(n: u128) -> ClientId {
    ClientId::from_dice(n << 64)
}

pub(crate) fn failure() -> Failure {
    Failure {
        item: None,
        code: "sql_error".into(),
        class: FailureClass::Permanent,
        message: "0004_tags/up.sql, step 1, line 2, column 19: no such column: titel\n  UPDATE notes SET slug = titel\n                          ^"
            .into(),
        remedy: operator("publish a new revision of this version; `whimbrel retry` tries the same again"),
    }
}

fn migrations(statuses: &[Status]) -> Vec<MigrationView> {
    ["0001_init", "0002_add_slugs", "0003_people", "0004_tags", "0005_index"]
        .iter()
        .zip(statuses)
        .zip(1..)
        .map(|((name, status), version)| MigrationView {
            version,
            name: name.parse().unwrap(),
            status: *status,
            attempts: u32::from(*status != Status::Pending),
            completed_at_ms: status.is_in_place().then_some(NOW_MS - 86_400_000 * (6 - i64::from(version))),
        })
        .collect()
}

pub(crate) fn database(name: &str, n: u128) -> DatabaseView {
    use Status::Completed;
    DatabaseView {
        path: format!("/var/lib/notes/{name}").into(),
        app: "notes".parse().unwrap(),
        client_id: Some(client(n)),
        epoch: 1,
        version: 5,
        latest: 5,
        order: Some(Order::ApplyUpTo { version: 5 }),
        pending: 0,
        status: Completed,
        now: Picture::default(),
        waiting_ms: None,
        half_done: None,
        failure: None,
        next_try_ms: None,
        app_version: Some("2.3.0".into()),
        no_rows: None,
        rows: None,
        health: vec![],
        migrations: migrations(&[Completed; 5]),
    }
}

pub(crate) fn well() -> Snapshot {
    Snapshot {
        schema: STATUS_SCHEMA.into(),
        daemon: DaemonView {
            version: "0.1.0".into(),
            pid: 4711,
            started_at_ms: NOW_MS - 11_520_000,
            activity: "idle".into(),
            cycles: 39,
            once: false,
        },
        server: ServerView {
            url: Some("https://updates.example.com".into()),
            device_id: Some(DeviceId::from_dice(7)),
            state: "online".into(),
            trust: "none".into(),
            last_exchange_ms: Some(NOW_MS - 12_000),
            failures: 0,
            next_poll_ms: Some(NOW_MS + 288_000),
            reports_unsent: 0,
            error: None,
            remedy: None,
        },
        databases: vec![DatabaseView { rows: Some(RowsView { checked_ms: Some(NOW_MS - 12_000), ..RowsView::default() }), ..database("a.db", 1) }],
        health: vec![],
    }
}

pub(crate) fn snapshot() -> Snapshot {
    use Status::{Completed, Failed, Pending, Running};
    let well = well();
    Snapshot {
        daemon: DaemonView { activity: "applying".into(), ..well.daemon },
        server: ServerView {
            state: "offline".into(),
            last_exchange_ms: Some(NOW_MS - 7_200_000),
            failures: 4,
            next_poll_ms: Some(NOW_MS + 95_000),
            reports_unsent: 3,
            error: Some("connecting to updates.example.com: connection refused".into()),
            remedy: Some(wait("it is tried again when the network returns, in 95 s at the latest")),
            ..well.server
        },
        databases: vec![
            database("a.db", 1),
            DatabaseView {
                version: 3,
                pending: 2,
                status: Running,
                now: Picture {
                    phase: Phase::Running { version: 4, name: "0004_tags".parse().unwrap(), operation: Operation::Apply },
                    step: 1,
                    steps: 2,
                    statement: 3,
                    done: 0,
                    total: 2,
                    rows: None,
                },
                migrations: migrations(&[Completed, Completed, Completed, Running, Pending]),
                ..database("b.db", 2)
            },
            DatabaseView {
                version: 3,
                pending: 2,
                status: Failed,
                failure: Some(MigrationFailure { migration: Some("0004_tags".parse().unwrap()), version: 4, failure: failure() }),
                health: vec![HealthItem {
                    code: failure().code,
                    severity: Severity::Error,
                    message: format!("0004_tags failed: {}", failure().message),
                    remedy: failure().remedy,
                }],
                migrations: migrations(&[Completed, Completed, Completed, Failed, Pending]),
                ..database("c.db", 3)
            },
            DatabaseView {
                version: 4,
                pending: 1,
                status: Pending,
                health: vec![HealthItem {
                    code: "held".into(),
                    severity: Severity::Info,
                    message: "held by a person until 2026-12-01 08:00".into(),
                    remedy: here("whimbrel release d.db"),
                }],
                rows: Some(rows_view()),
                migrations: migrations(&[Completed, Completed, Completed, Completed, Pending]),
                ..database("d.db", 4)
            },
            DatabaseView {
                rows: Some(RowsView { error: Some("the application held the file for 10 s".into()), ..RowsView::default() }),
                order: Some(Order::RevertDownTo { version: 4 }),
                now: Picture { phase: Phase::Waiting, ..Picture::default() },
                waiting_ms: Some(65_000),
                status: Pending,
                ..database("e.db", 5)
            },
            DatabaseView {
                client_id: None,
                version: 0,
                latest: 0,
                order: None,
                app_version: None,
                status: Pending,
                health: vec![HealthItem {
                    code: "owner".into(),
                    severity: Severity::Error,
                    message: "/var/lib/notes/f.db belongs to another user (1001)".into(),
                    remedy: here("run the daemon as that user: whimbrel@USER.service"),
                }],
                migrations: vec![],
                ..database("f.db", 6)
            },
        ],
        health: vec![HealthItem {
            code: "disk_full".into(),
            severity: Severity::Error,
            message: "the disk of /var/lib/whimbrel is full: 12 kB are free".into(),
            remedy: here("free some disk space; everything goes on by itself"),
        }],
        ..well
    }
}

pub(crate) fn summary() -> Summary {
    Summary {
        total: 4,
        completed: 2,
        failed: 1,
        skipped: 1,
        migrations: 3,
        errors: vec![
            SummaryError {
                database: "/var/lib/notes/c.db".into(),
                migration: Some("0004_tags".parse().unwrap()),
                code: failure().code,
                message: failure().message,
                remedy: failure().remedy,
                waiting: false,
            },
            SummaryError {
                database: "/var/lib/notes/d.db".into(),
                migration: None,
                code: "held".into(),
                message: "held by a person until 2026-12-01 08:00".into(),
                remedy: here("whimbrel release d.db"),
                waiting: true,
            },
        ],
        items: None,
        rows: vec![],
    }
}

pub(crate) fn events() -> Vec<Event> {
    let event = |n: u128, kind, status, attempt, by, ago_ms, took_ms, failure| Event {
        event_id: EventId::from_dice(n),
        client_id: client(3),
        app: "notes".parse().unwrap(),
        kind,
        operation: Operation::Apply,
        migration: "0004_tags".parse().unwrap(),
        version: 4,
        revision: 1,
        digest: Digest::of(b"0004"),
        status,
        attempt,
        by,
        at_ms: NOW_MS - ago_ms,
        took_ms,
        failure,
        fingerprint: None,
        rows: None,
        verify_skipped: false,
    };
    vec![
        event(5, EventKind::Failed, Status::Failed, 2, AskedBy::Person, 60_000, Some(38), Some(failure())),
        event(4, EventKind::Started, Status::Running, 2, AskedBy::Person, 60_038, None, None),
        event(3, EventKind::Retried, Status::Pending, 1, AskedBy::Person, 60_100, None, None),
        event(2, EventKind::Crashed, Status::Pending, 1, AskedBy::Recovery, 7_200_000, None, None),
        event(1, EventKind::Started, Status::Running, 1, AskedBy::Plan, 7_260_000, None, None),
    ]
}

/// What became of rows, with everything that can be told.
pub(crate) fn rows() -> RowReport {
    RowReport {
        changed: 1_200,
        skipped: 300,
        failed: 3,
        codes: vec![CodeCount { code: 1299, rows: 2 }, CodeCount { code: 2067, rows: 1 }],
        items: vec![NamedItem { step: 2, key: "[7]".into(), message: "NOT NULL constraint failed: notes.slug".into() }],
        at: None,
    }
}

pub(crate) fn failed_items() -> Vec<FailedItemView> {
    let item = |step, key: &str, code, message: &str, row: &str| FailedItemView {
        database: "/var/lib/notes/a.db".into(),
        version: 2,
        migration: Some("0002_add_slugs".parse().unwrap()),
        step,
        key: key.into(),
        code,
        message: message.into(),
        row: Some(row.into()),
        at_ms: NOW_MS - 60_000,
    };
    vec![
        item(2, "[7]", 1299, "NOT NULL constraint failed: notes.slug", r#"{"id":7,"title":null,"slug":null}"#),
        item(3, "cards.ndjson:12", 2067, "UNIQUE constraint failed: cards.front", r#"{"id":12,"front":"a"}"#),
    ]
}

pub(crate) fn tables() -> Vec<TablesView> {
    let table = |table: &str, rows, bytes, guess| TableSize { table: table.into(), rows, bytes, rows_estimated: guess, bytes_estimated: guess };
    let view = |path: &str, file_bytes, tables| TablesView { database: path.into(), file_bytes, tables, error: None };
    vec![
        view("/var/lib/notes/a.db", 8_400_000, vec![table("notes", 12_000, 7_100_000, false), table("tags", 40, 8_192, false)]),
        view("/var/lib/notes/b.db", 9_800_000_000, vec![table("notes", 90_000_000, 9_800_000_000, true)]),
    ]
}

pub(crate) fn plans() -> Vec<PlanView> {
    let files = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>();
    vec![
        PlanView {
            path: "/var/lib/notes/a.db".into(),
            app: "notes".parse().unwrap(),
            version: 5,
            waits_for: vec![],
            steps: vec![],
            free_bytes: Some(8_100_000_000),
            rehearsal: None,
        },
        PlanView {
            path: "/var/lib/notes/d.db".into(),
            app: "notes".parse().unwrap(),
            version: 3,
            waits_for: vec![HealthItem {
                code: "window".into(),
                severity: Severity::Info,
                message: "the maintenance window is closed until 02:00".into(),
                remedy: wait("it opens at 02:00; `whimbrel apply` does not wait for it"),
            }],
            steps: vec![
                PlannedMigration {
                    version: 4,
                    name: "0004_tags".parse().unwrap(),
                    operation: Operation::Apply,
                    files: files(&[
                        ("up.sql", "CREATE TABLE tags (id INTEGER PRIMARY KEY, tag TEXT NOT NULL);\nUPDATE notes SET slug = lower(title);\n"),
                        ("down.sql", "DROP TABLE tags;\n"),
                        ("verify.sql", "SELECT 1 FROM notes WHERE slug IS NULL;\n"),
                    ]),
                    rows: 12_000,
                    lock_ms: 38,
                    took_ms: 38,
                    write_bytes: 1_230_000,
                    backup: true,
                },
                PlannedMigration {
                    version: 5,
                    name: "0005_index".parse().unwrap(),
                    operation: Operation::Apply,
                    files: files(&[("up.sql", "CREATE INDEX notes_slug ON notes (slug);")]),
                    rows: 12_000,
                    lock_ms: 9,
                    took_ms: 4_009,
                    write_bytes: 300_000,
                    backup: false,
                },
            ],
            free_bytes: Some(8_100_000_000),
            rehearsal: None,
        },
    ]
}

/// The same, rehearsed: one that went well, and one that did not.
pub(crate) fn rehearsed_plans() -> Vec<PlanView> {
    let mut plans = plans();
    let rehearsed = |version, name: &str, status, rows, took_ms, failure: Option<Failure>| Rehearsed {
        version,
        name: name.parse().unwrap(),
        operation: Operation::Apply,
        status,
        rows,
        took_ms,
        fingerprint: failure.is_none().then(|| Digest::of(b"0004")),
        failure,
    };
    plans[0].rehearsal = Some(Rehearsal::default());
    plans[1].rehearsal = Some(Rehearsal {
        copy_bytes: 12_300_000,
        copied_ms: 41,
        migrations: vec![
            rehearsed(4, "0004_tags", Status::Completed, 12_000, 35, None),
            rehearsed(5, "0005_index", Status::Failed, 0, 2, Some(failure())),
        ],
        failure: None,
    });
    plans
}

pub(crate) fn backups() -> Vec<BackupView> {
    let backup = |name: &str, n: u128, id: &str, version, ago_ms, reason| {
        let client_id = client(n);
        BackupView {
            database: format!("/var/lib/notes/{name}").into(),
            backup: Backup {
                path: format!("/var/lib/whimbrel/backups/{client_id}/{id}.db").into(),
                size_bytes: 12_300_000,
                of: Of {
                    backup_id: id.to_owned(),
                    client_id,
                    app: "notes".parse().unwrap(),
                    epoch: 1,
                    version,
                    fingerprint: (version == 4).then(|| Digest::of(b"0004")),
                    taken_at_ms: NOW_MS - ago_ms,
                    reason,
                },
            },
        }
    };
    vec![
        backup("a.db", 1, "20261103-130509-v4", 4, 3_600_000, Reason::BeforeApply),
        backup("a.db", 1, "20261031-140509-v3", 3, 259_200_000, Reason::Person),
        backup("b.db", 2, "20261103-140459-v3", 3, 10_000, Reason::BeforeRevert),
    ]
}

pub(crate) fn refused_restore() -> Vec<SummaryError> {
    let error = BackupError::Newer {
        database: "/var/lib/notes/a.db".into(),
        backup_id: "20261103-130509-v4".into(),
        why: "somebody else has written since, or it is not the newest backup",
        lost: "3 rows of notes, 1 row of tags".into(),
    };
    vec![SummaryError {
        database: "/var/lib/notes/a.db".into(),
        migration: None,
        code: error.code().into(),
        message: error.to_string(),
        remedy: error.remedy(),
        waiting: false,
    }]
}

pub(crate) fn checks() -> Vec<Check> {
    let check = |code: &str, result: &str, message: &str, remedy| Check { code: code.into(), result: result.into(), message: message.into(), remedy };
    vec![
        check("config", "ok", "/etc/whimbrel/config.toml: 1 server, 1 database rule", None),
        check("trust", "warning", "trust = \"none\": the server is believed whatever it says", Some(here("use it for development only"))),
        check("clock", "info", "the clock agrees with the server's to 0.2 s", None),
        check(
            "database",
            "error",
            "/var/lib/notes/f.db belongs to another user (1001)",
            Some(here("run the daemon as that user: whimbrel@USER.service")),
        ),
    ]
}

pub(crate) fn adopt_views() -> Vec<AdoptView> {
    let view = |name: &str, version, trackers| AdoptView {
        path: format!("/var/lib/notes/{name}").into(),
        app: "notes".parse().unwrap(),
        version,
        latest: 5,
        trackers,
        adopted: None,
        would: None,
        refused: None,
    };
    let tracker = |tool: &str, table: &str, applied, last: &str, trouble: Option<&str>| TrackerView {
        tool: tool.into(),
        table: table.into(),
        applied,
        last: Some(last.into()),
        trouble: trouble.map(Into::into),
    };
    vec![
        AdoptView {
            would: Some(WouldAdopt {
                version: 3,
                by: "Django".into(),
                notes: vec!["Django: 18 entries are of parts that the chain does not speak of, and stay its own".into()],
            }),
            ..view("a.db", 0, vec![tracker("Django", "django_migrations", 21, "notes.0003_tags", None)])
        },
        AdoptView {
            refused: Some(HealthItem {
                code: "tracker_dirty".into(),
                severity: Severity::Info,
                message: "golang-migrate (schema_migrations): version 3 is dirty: it was left half applied".into(),
                remedy: here("finish or undo by hand what 3 began, then `migrate force VERSION` with the version that is in place"),
            }),
            ..view("b.db", 0, vec![tracker("golang-migrate", "schema_migrations", 1, "3", Some("version 3 is dirty: it was left half applied"))])
        },
        AdoptView {
            adopted: Some(AdoptedView { version: 2, by: "person".into(), at_ms: NOW_MS - 60_000, drift: vec!["table tags differs".into()] }),
            refused: Some(HealthItem {
                code: "has_history".into(),
                severity: Severity::Info,
                message: "its history is whimbrel's own already, up to version 4".into(),
                remedy: here("nothing to do: `whimbrel status` shows where it stands"),
            }),
            ..view("c.db", 4, vec![])
        },
    ]
}

pub(crate) fn standing() -> Standing {
    Standing {
        unsent: 3,
        unfolded: 2,
        cursor: 41_207,
        quarantined: 1,
        conflicts_open: 2,
        exchanged_ms: Some(NOW_MS - 90_000),
        tables: vec![
            TableStanding { table: 1, name: Some("notes".into()), unsent: 2, quarantined: 0, conflicts_open: 1 },
            TableStanding { table: 4, name: None, unsent: 1, quarantined: 1, conflicts_open: 1 },
        ],
    }
}

pub(crate) fn rows_view() -> RowsView {
    let moved = RowsMoved { pushed: 3, accepted: 1, merged: 1, open: 1, landed: 12, anew: false };
    RowsView { standing: standing(), checked_ms: Some(NOW_MS - 12_000), moved, error: None }
}

pub(crate) fn synced() -> Vec<RowsDone> {
    let table = |table, name: &str| VerifiedTable { table, name: name.into(), rows: (1_200, 1_200), keys: true, differs: vec![], unsaid: vec![] };
    let tables = vec![
        table(1, "notes"),
        VerifiedTable { rows: (40, 41), keys: false, ..table(2, "people") },
        VerifiedTable { differs: vec!["color".into()], unsaid: vec!["size".into()], ..table(4, "tags") },
    ];
    let done = |name: &str| RowsDone { database: format!("/var/lib/notes/{name}").into(), exchanged: Some(rows_view().moved), ..RowsDone::default() };
    vec![done("a.db"), RowsDone { compared: Some(tables), exchanged: Some(RowsMoved::default()), ..done("b.db") }]
}

pub(crate) fn offline_rows() -> Vec<SummaryError> {
    vec![SummaryError {
        database: "/var/lib/notes/c.db".into(),
        migration: None,
        code: "rows_offline".into(),
        message: "connecting to updates.example.com: connection refused".into(),
        remedy: wait("it is tried again when the network returns, in 95 s at the latest"),
        waiting: false,
    }]
}

pub(crate) fn conflicts() -> Vec<ConflictView> {
    let text = |text: &str| Some(Value::text(text));
    let column = |name: &str, mine, theirs| ConflictColumn { column: name.into(), mine, theirs };
    let open = ConflictView {
        database: "/var/lib/notes/a.db".into(),
        id: 12,
        table: "people".into(),
        key: vec![Value::Integer(7)],
        kind: "unique_taken".into(),
        open: true,
        at_ms: NOW_MS - 90_000,
        columns: vec![column("mail", text("ann@example.com"), None)],
        other_key: Some(vec![Value::Integer(3)]),
        why: None,
        min_schema: None,
        decided: None,
        choices: vec![Choice::Theirs, Choice::Retry],
    };
    let long = "a body that is so long that nobody wants to see all of it in a list, and that --json has whole";
    let closed = ConflictView {
        id: 9,
        table: "notes".into(),
        key: vec![Value::text("n1"), Value::Integer(2)],
        kind: "edits".into(),
        open: false,
        at_ms: NOW_MS - 86_400_000,
        columns: vec![column("title", text("mine"), text("theirs")), column("body", text(long), Some(Value::Null))],
        other_key: None,
        choices: vec![Choice::Mine, Choice::Theirs],
        ..open.clone()
    };
    vec![open, closed]
}

pub(crate) fn waiting() -> Vec<WaitingView> {
    let one = WaitingView {
        database: "/var/lib/notes/a.db".into(),
        table: "people".into(),
        key: vec![Value::Integer(7)],
        version: 41_190,
        values: Some(vec![
            WaitingColumn { column: "mail".into(), value: Value::text("ann@example.com") },
            WaitingColumn { column: "photo".into(), value: Value::Blob(vec![0, 255]) },
        ]),
        code: "unique".into(),
        why: "UNIQUE constraint failed: people.mail".into(),
        at_ms: NOW_MS - 90_000,
        tries: 3,
    };
    let deleted = WaitingView {
        table: "tags".into(),
        key: vec![Value::text("b"), Value::Integer(7)],
        version: 40_002,
        values: None,
        code: "has_children".into(),
        why: "it was deleted, and rows of marks here still refer to it".into(),
        tries: 1,
        ..one.clone()
    };
    vec![one, deleted]
}

pub(crate) fn detached() -> Vec<RowsDone> {
    let left = Left { unsent: 3, conflicts: 1, quarantined: 0, archived: 2 };
    let file = Some("/var/lib/notes/a.db-whimbrel-left.json".into());
    let detached = Some(Detached { left, file, objects: 31 });
    let nothing =
        RowsDone { database: "/var/lib/notes/b.db".into(), detached: Some(Detached { objects: 12, ..Detached::default() }), ..RowsDone::default() };
    vec![RowsDone { database: "/var/lib/notes/a.db".into(), detached, ..RowsDone::default() }, nothing]
}
