-- What signatures rest on, by app. Each row carries the digest of all that stands in it: a disk that changed one is found
-- out, and is never taken for "nothing is known", which would forget how far the repository had come.

-- The root that everything is verified from, as a person gave it.
CREATE TABLE trust_anchor (
    app          TEXT PRIMARY KEY NOT NULL,
    root         BLOB NOT NULL,
    pinned_at_ms INTEGER NOT NULL,
    digest       TEXT NOT NULL
);

-- Metadata as it was fetched and verified: `root.json`, `root_history/N.root.json`, `timestamp.json` …
CREATE TABLE trust_file (
    app    TEXT NOT NULL,
    name   TEXT NOT NULL,
    body   BLOB NOT NULL,
    digest TEXT NOT NULL,
    PRIMARY KEY (app, name)
);

-- The versions below which nothing is believed any more. The first copy of each is in the file itself; this is the second.
CREATE TABLE trust_floor (
    app     TEXT NOT NULL,
    role    TEXT NOT NULL,
    version INTEGER NOT NULL,
    -- Key ids that signed it, with spaces between: a root that took them away takes the floor away.
    signers TEXT NOT NULL,
    -- Digest of the root that was pinned then.
    anchor  TEXT NOT NULL,
    digest  TEXT NOT NULL,
    PRIMARY KEY (app, role)
) WITHOUT ROWID;

-- Whole sets of metadata that were current when something was accepted: what is verified again before it runs.
CREATE TABLE trust_proof (
    app               TEXT NOT NULL,
    proof             TEXT NOT NULL,
    accepted_at_ms    INTEGER NOT NULL,
    root_version      INTEGER NOT NULL,
    timestamp_version INTEGER NOT NULL,
    snapshot_version  INTEGER NOT NULL,
    targets_version   INTEGER NOT NULL,
    signers           TEXT NOT NULL,
    timestamp         BLOB NOT NULL,
    snapshot          BLOB NOT NULL,
    targets           BLOB NOT NULL,
    PRIMARY KEY (app, proof)
);

-- Which of them speaks for an accepted target, and since when the publisher no longer lists it.
CREATE TABLE target_proof (
    app             TEXT NOT NULL,
    version         INTEGER NOT NULL,
    revision        INTEGER NOT NULL,
    proof           TEXT NOT NULL,
    withdrawn_at_ms INTEGER,
    PRIMARY KEY (app, version, revision)
) WITHOUT ROWID;
