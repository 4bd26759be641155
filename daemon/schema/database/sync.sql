-- What capture and sync keep in a managed file that exchanges rows, and only there (docs/sync.md). The same grammar as 001:
-- the application's library parses it, and its own writes run the trigger below. It runs again to restore what somebody dropped.

-- Keys of rows that changed, in the order of the changes. Written by the triggers on the application's tables; the only
-- thing that its writes pay for. `mask`: bits of the columns that changed; 0: they are not known; -2: the row may be gone.
-- The key columns have no type, so that each value keeps its storage class. The last row is never deleted: its number is
-- where the next one goes on.
CREATE TABLE IF NOT EXISTS _whimbrel_journal (
    seq     INTEGER PRIMARY KEY,
    tab     INTEGER NOT NULL,
    k1, k2, k3, k4,
    mask    INTEGER NOT NULL,
    wall_ms INTEGER NOT NULL
);

-- How far the journal has been folded.
CREATE TABLE IF NOT EXISTS _whimbrel_folded (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL
);

-- There always is a row that was folded, and its number is never 1: a journal that somebody emptied begins anew with 1.
INSERT OR IGNORE INTO _whimbrel_folded (one, seq) VALUES (1, 2);

INSERT INTO _whimbrel_journal (seq, tab, mask, wall_ms)
SELECT seq, 0, 0, 0 FROM _whimbrel_folded WHERE NOT EXISTS (SELECT 1 FROM _whimbrel_journal);

-- Tables whose rows have to be compared with what was recorded of them, and how far that has come.
-- `phase` 1: rows that are there; 2: rows that were recorded.
CREATE TABLE IF NOT EXISTS _whimbrel_sweep (
    tab     INTEGER PRIMARY KEY,
    why     TEXT NOT NULL,
    wall_ms INTEGER NOT NULL,
    phase   INTEGER NOT NULL,
    k1, k2, k3, k4
);

-- Bounds a journal that nobody folds: the newest 262144 rows stay. That older ones went is seen in the numbers, and every
-- table is swept then. Every statement that the application prepares compiles this trigger too, so it is short; its first
-- form, which kept the keys of what went, cost each of them 60 µs.
CREATE TRIGGER IF NOT EXISTS _whimbrel_journal_bound AFTER INSERT ON _whimbrel_journal WHEN NEW.seq % 512 = 0
BEGIN
    DELETE FROM _whimbrel_journal WHERE seq <= NEW.seq - 262144;
END;

-- Tables that are captured: their keys and columns as the triggers were written for, and the digest of the triggers' texts.
CREATE TABLE IF NOT EXISTS _whimbrel_captured (
    tab      INTEGER PRIMARY KEY,
    shape    TEXT NOT NULL,
    triggers TEXT NOT NULL
);

-- What the server is known to have: its version of the row, and a hash per column. A version below 0 is one that was not told
-- yet, where everything is told anew; 0 counts in no series. Keys are canonical (docs/sync.md), 0
-- where a key has fewer columns.
CREATE TABLE IF NOT EXISTS _whimbrel_row (
    tab     INTEGER NOT NULL,
    k1      NOT NULL,
    k2      NOT NULL,
    k3      NOT NULL,
    k4      NOT NULL,
    version INTEGER NOT NULL,
    hashes  BLOB NOT NULL,
    PRIMARY KEY (tab, k1, k2, k3, k4)
) WITHOUT ROWID;

-- Rows with unsent edits, keyed like _whimbrel_row. `seq`: the number of the last edit; rows are sent in this order.
-- `deed` 1: insert, 2: edit, 3: delete. `edits`: the dirty columns with bases, stamps and clocks.
CREATE TABLE IF NOT EXISTS _whimbrel_outbox (
    tab   INTEGER NOT NULL,
    k1    NOT NULL,
    k2    NOT NULL,
    k3    NOT NULL,
    k4    NOT NULL,
    seq   INTEGER NOT NULL,
    deed  INTEGER NOT NULL,
    edits BLOB NOT NULL,
    PRIMARY KEY (tab, k1, k2, k3, k4)
) WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS _whimbrel_outbox_seq ON _whimbrel_outbox (seq);

-- Boots of this machine that stamps name by number. All stamps of a boot are in the time of one clock, which stood at
-- `began_ms` when the machine started; `last_ms` is the same by the clock as it was at the last fold, `folded_ms` after the
-- start: a clock that was set meanwhile shows. `server_ms`: the server's time of the start, once it is known.
CREATE TABLE IF NOT EXISTS _whimbrel_boot (
    number    INTEGER PRIMARY KEY,
    boot      TEXT NOT NULL UNIQUE,
    began_ms  INTEGER NOT NULL,
    last_ms   INTEGER NOT NULL,
    folded_ms INTEGER NOT NULL,
    server_ms INTEGER
);

-- Where the file stands with its space.
-- `version`: the schema for which everything up to the cursor was told. `series`: what cursor and versions count in.
-- `acked`: the highest version that an answer gave. `pushes`: the order of the last push; `answered`: of the last whose answer
-- was settled. `tell_again`: the next walk tells what this file wrote, too. `since`, `until` and `walked`: the walk for what a
-- newer version knows and an older one did not. `anew`: everything is being told anew; `was`: the series before that;
-- `marking`: what has to be done to every row of _whimbrel_row before anything lands (1: told from now on shows; 2: counts in no
-- series). `horizon`: deletions up to this version are forgotten here too. `reached`: the highest number that the file was ever
-- told or given, with its series; what is told anew does not take it back.
CREATE TABLE IF NOT EXISTS _whimbrel_exchange (
    one          INTEGER PRIMARY KEY CHECK (one = 1),
    version      INTEGER NOT NULL,
    series       TEXT,
    cursor       INTEGER NOT NULL,
    acked        INTEGER NOT NULL,
    pushes       INTEGER NOT NULL,
    answered     INTEGER NOT NULL,
    tell_again   INTEGER NOT NULL,
    since        INTEGER,
    until        INTEGER,
    walked       INTEGER NOT NULL,
    anew         INTEGER NOT NULL,
    was          TEXT,
    marking      INTEGER NOT NULL,
    horizon      INTEGER NOT NULL,
    exchanged_ms INTEGER,
    reached      TEXT
);

INSERT OR IGNORE INTO _whimbrel_exchange (one, version, cursor, acked, pushes, answered, tell_again, walked, anew, marking, horizon)
VALUES (1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);

-- The last push as it was sent, in pieces, until its answer is settled: without an answer the same bytes go again. `refused`: how
-- often the server could not read it.
CREATE TABLE IF NOT EXISTS _whimbrel_push (
    piece   INTEGER PRIMARY KEY,
    body    BLOB NOT NULL,
    refused INTEGER NOT NULL DEFAULT 0
);

-- The newest clock that was known when the journal stood at `seq`: an edit after it is later than that clock, and one before
-- it is not.
CREATE TABLE IF NOT EXISTS _whimbrel_clock (
    seq    INTEGER PRIMARY KEY,
    newest INTEGER NOT NULL
);

-- Rows of the server that cannot land yet (quarantine), whole, with the reason. Keyed like _whimbrel_row.
CREATE TABLE IF NOT EXISTS _whimbrel_quarantine (
    tab     INTEGER NOT NULL,
    k1      NOT NULL,
    k2      NOT NULL,
    k3      NOT NULL,
    k4      NOT NULL,
    version INTEGER NOT NULL,
    row     TEXT NOT NULL,
    code    TEXT NOT NULL,
    why     TEXT NOT NULL,
    at_ms   INTEGER NOT NULL,
    tries   INTEGER NOT NULL,
    PRIMARY KEY (tab, k1, k2, k3, k4)
) WITHOUT ROWID;

-- What met another's edit, with both sides. `open`: the row's edits up to number `seq` are not sent until somebody decides,
-- or edits the row again.
CREATE TABLE IF NOT EXISTS _whimbrel_conflict (
    id    INTEGER PRIMARY KEY,
    tab   INTEGER NOT NULL,
    k1    NOT NULL,
    k2    NOT NULL,
    k3    NOT NULL,
    k4    NOT NULL,
    kind  TEXT NOT NULL,
    open  INTEGER NOT NULL,
    seq   INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    detail TEXT NOT NULL
);

CREATE INDEX IF NOT EXISTS _whimbrel_conflict_row ON _whimbrel_conflict (tab, k1, k2, k3, k4, open);

-- Values that were not sent and have no place any more: of columns and tables that a migration took away, and of rows that a
-- person gave up. Names are those of then. `value` has no type, so that it keeps its own; `stamp` is JSON.
CREATE TABLE IF NOT EXISTS _whimbrel_archive (
    id      INTEGER PRIMARY KEY,
    at_ms   INTEGER NOT NULL,
    version INTEGER NOT NULL,
    why     TEXT NOT NULL,
    tab     INTEGER NOT NULL,
    name    TEXT NOT NULL,
    key     TEXT NOT NULL,
    col     INTEGER,
    column_name TEXT,
    value,
    wall_ms INTEGER NOT NULL
);

-- Only the few that wait are looked for by this: the others stay for a while.
CREATE INDEX IF NOT EXISTS _whimbrel_conflict_open ON _whimbrel_conflict (id) WHERE open;

-- What tables and columns that exchange rows are called at the version of the last exchange; `col` 0: the table itself.
CREATE TABLE IF NOT EXISTS _whimbrel_name (
    tab  INTEGER NOT NULL,
    col  INTEGER NOT NULL,
    name TEXT NOT NULL,
    PRIMARY KEY (tab, col)
) WITHOUT ROWID;

-- For the application to read (docs/sync.md). `unfolded`: changes that were not looked at yet.
CREATE VIEW IF NOT EXISTS _whimbrel_sync AS
    SELECT (SELECT count(*) FROM _whimbrel_outbox) AS unsent,
           max(0, coalesce((SELECT max(seq) FROM _whimbrel_journal), 0) - (SELECT seq FROM _whimbrel_folded)) AS unfolded,
           cursor, exchanged_ms,
           (SELECT count(*) FROM _whimbrel_conflict WHERE open) AS conflicts_open,
           (SELECT count(*) FROM _whimbrel_quarantine) AS quarantined
    FROM _whimbrel_exchange;

-- `key` to `key4`: the columns of the row's key in their order; 0 beyond its last.
CREATE VIEW IF NOT EXISTS _whimbrel_conflicts AS
    SELECT c.id, n.name AS table_name, c.k1 AS key, c.k2 AS key2, c.k3 AS key3, c.k4 AS key4, c.kind, c.open, c.at_ms, c.tab, c.detail
    FROM _whimbrel_conflict AS c LEFT JOIN _whimbrel_name AS n ON n.tab = c.tab AND n.col = 0;

CREATE VIEW IF NOT EXISTS _whimbrel_waiting AS
    SELECT n.name AS table_name, q.k1 AS key, q.k2 AS key2, q.k3 AS key3, q.k4 AS key4, q.code, q.why, q.at_ms, q.tries, q.version
    FROM _whimbrel_quarantine AS q LEFT JOIN _whimbrel_name AS n ON n.tab = q.tab AND n.col = 0;
