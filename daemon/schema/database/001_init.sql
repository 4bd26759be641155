-- Whimbrel's own tables in a managed file. The application's library parses them too, so the grammar is that of
-- SQLite 3.8.2, without JSON functions.

CREATE TABLE _whimbrel_meta (
    key   TEXT PRIMARY KEY NOT NULL,
    value
);

-- One row per migration that was ever begun here.
CREATE TABLE _whimbrel_migration (
    version         INTEGER PRIMARY KEY,
    revision        INTEGER NOT NULL,
    name            TEXT NOT NULL,
    digest          TEXT NOT NULL,
    status          TEXT NOT NULL,
    attempts        INTEGER NOT NULL,
    started_at_ms   INTEGER,
    completed_at_ms INTEGER,
    failure         TEXT,
    error           TEXT
);

-- Every fact, in order; each is a report until the daemon has copied it to its own store. Never deleted.
CREATE TABLE _whimbrel_event (
    seq         INTEGER PRIMARY KEY,
    event_id    TEXT NOT NULL UNIQUE,
    kind        TEXT NOT NULL,
    operation   TEXT NOT NULL,
    migration   TEXT NOT NULL,
    version     INTEGER NOT NULL,
    revision    INTEGER NOT NULL,
    digest      TEXT NOT NULL,
    status      TEXT NOT NULL,
    attempt     INTEGER NOT NULL,
    asked_by    TEXT NOT NULL,
    at_ms       INTEGER NOT NULL,
    took_ms     INTEGER,
    failure     TEXT,
    error       TEXT,
    fingerprint TEXT,
    rows        TEXT,
    -- 1: a person had its `verify` steps left out.
    verify_skipped INTEGER NOT NULL DEFAULT 0
);

-- What is being run. A row that is here while nobody holds the lock file is a crash.
CREATE TABLE _whimbrel_intent (
    one           INTEGER PRIMARY KEY CHECK (one = 1),
    operation     TEXT NOT NULL,
    from_version  INTEGER NOT NULL,
    to_version    INTEGER NOT NULL,
    next_version  INTEGER NOT NULL,
    asked_by      TEXT NOT NULL,
    started_at_ms INTEGER NOT NULL
);

-- Crashes in a row without progress, of the migration that ran. Progress clears it.
CREATE TABLE _whimbrel_crash (
    version INTEGER PRIMARY KEY,
    count   INTEGER NOT NULL
);

-- How far an online migration has come between two of its transactions.
CREATE TABLE _whimbrel_checkpoint (
    version       INTEGER PRIMARY KEY,
    revision      INTEGER NOT NULL,
    digest        TEXT NOT NULL,
    unit          INTEGER NOT NULL,
    schemas       INTEGER NOT NULL,
    position      TEXT,
    examined      INTEGER NOT NULL,
    total         INTEGER NOT NULL,
    changed       INTEGER NOT NULL,
    skipped       INTEGER NOT NULL,
    failed        INTEGER NOT NULL,
    started_at_ms INTEGER NOT NULL,
    verify_skipped INTEGER NOT NULL
);

-- Keys of rows that the application touched while a backfill walks their table. Emptied as they are looked at.
CREATE TABLE _whimbrel_touched (
    seq  INTEGER PRIMARY KEY,
    unit INTEGER NOT NULL,
    k1, k2, k3, k4, k5, k6, k7, k8
);

-- Rows that a step could not change or load, and went on without.
CREATE TABLE _whimbrel_failed_item (
    version  INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    step     INTEGER NOT NULL,
    item     TEXT NOT NULL,
    code     INTEGER NOT NULL,
    message  TEXT NOT NULL,
    row      TEXT,
    at_ms    INTEGER NOT NULL,
    PRIMARY KEY (version, step, item)
);

-- For the application to read.
CREATE VIEW _whimbrel_status AS
    SELECT version, revision, name, status, attempts, started_at_ms, completed_at_ms, error FROM _whimbrel_migration;

CREATE VIEW _whimbrel_history AS
    SELECT seq, at_ms, kind, operation, migration, version, revision, status, attempt, asked_by, took_ms, error, verify_skipped
    FROM _whimbrel_event ORDER BY seq DESC;
