-- The daemon's own store: what it knows, what it has accepted, and what it still has to say.

CREATE TABLE setting (
    key   TEXT PRIMARY KEY NOT NULL,
    value TEXT
) WITHOUT ROWID;

-- The databases of this device, as last seen.
CREATE TABLE database (
    client_id  TEXT PRIMARY KEY NOT NULL,
    path       TEXT NOT NULL,
    app        TEXT NOT NULL,
    epoch      INTEGER NOT NULL,
    device     INTEGER NOT NULL,
    inode      INTEGER NOT NULL,
    -- Last event of the file that stands in `report`.
    copied_seq INTEGER NOT NULL,
    copied_id  TEXT
) WITHOUT ROWID;
CREATE INDEX database_path ON database (path);

-- Accepted target files. A row is never overwritten.
CREATE TABLE target (
    app            TEXT NOT NULL,
    version        INTEGER NOT NULL,
    revision       INTEGER NOT NULL,
    name           TEXT NOT NULL,
    digest         TEXT NOT NULL,
    entry          TEXT NOT NULL,
    body           BLOB NOT NULL,
    accepted_at_ms INTEGER NOT NULL,
    PRIMARY KEY (app, version, revision)
);

CREATE TABLE plan (
    client_id TEXT PRIMARY KEY NOT NULL,
    plan_seq  INTEGER NOT NULL,
    body      TEXT NOT NULL
) WITHOUT ROWID;

-- Every event of every database, in the order of copying: history for the command line, and the outbox (unsent).
CREATE TABLE report (
    seq       INTEGER PRIMARY KEY,
    event_id  TEXT NOT NULL UNIQUE,
    client_id TEXT NOT NULL,
    body      TEXT NOT NULL,
    sent      INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX report_unsent ON report (seq) WHERE sent = 0;
CREATE INDEX report_client ON report (client_id, seq);

-- What a person asked for, until it is done, and what became of it.
CREATE TABLE request (
    request_id  TEXT PRIMARY KEY NOT NULL,
    seq         INTEGER NOT NULL UNIQUE,
    body        TEXT NOT NULL,
    asked_at_ms INTEGER NOT NULL,
    outcome     TEXT
) WITHOUT ROWID;

CREATE TABLE hold (
    client_id TEXT PRIMARY KEY NOT NULL,
    until_ms  INTEGER,
    since_ms  INTEGER NOT NULL
) WITHOUT ROWID;
