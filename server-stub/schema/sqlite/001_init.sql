-- The server's store. A released file never changes: the next change is 002_*.sql.

-- One row per app: the current targets metadata as the exact bytes that are served, and the plan for its databases.
CREATE TABLE app (
  name            TEXT    NOT NULL PRIMARY KEY,
  targets         BLOB    NOT NULL,
  targets_version INTEGER NOT NULL,
  targets_digest  TEXT    NOT NULL,
  latest          INTEGER NOT NULL,           -- newest published version, 0 for none
  plan            TEXT,                       -- an order as JSON; NULL: up to the newest
  plan_seq        INTEGER NOT NULL            -- grows with every plan and every publish
) STRICT;

-- One row per published revision. Never changed, never deleted.
CREATE TABLE migration (
  app             TEXT    NOT NULL REFERENCES app(name),
  name            TEXT    NOT NULL,
  version         INTEGER NOT NULL,
  revision        INTEGER NOT NULL,
  path            TEXT    NOT NULL,
  digest          TEXT    NOT NULL,
  body            BLOB    NOT NULL,
  seed            TEXT    NOT NULL,           -- the statements for clients of the seed form, as JSON
  published_at_ms INTEGER NOT NULL,
  published_by    TEXT    NOT NULL,
  PRIMARY KEY (app, version, revision),
  UNIQUE (app, path)
) STRICT;

CREATE TABLE device (
  device_id      TEXT    NOT NULL PRIMARY KEY,
  token_hash     TEXT    NOT NULL UNIQUE,
  name           TEXT    NOT NULL,
  daemon_version TEXT    NOT NULL,
  labels         TEXT    NOT NULL,
  enrolled_at_ms INTEGER NOT NULL,
  last_seen_ms   INTEGER NOT NULL
) STRICT;

CREATE TABLE device_app (
  device_id TEXT NOT NULL REFERENCES device(device_id),
  app       TEXT NOT NULL REFERENCES app(name),
  PRIMARY KEY (device_id, app)
) STRICT, WITHOUT ROWID;

-- One row per database. `version` is the newest word on what is in place: see decide/place.rs.
CREATE TABLE client (
  client_id        TEXT    NOT NULL PRIMARY KEY,
  device_id        TEXT    NOT NULL REFERENCES device(device_id),
  app              TEXT    NOT NULL REFERENCES app(name),
  state            TEXT,                      -- as last sent; NULL: this client never sends one (seed form)
  reported_version INTEGER NOT NULL,          -- the version in `state`
  state_seq        INTEGER NOT NULL,          -- the newest event when `state` arrived
  version          INTEGER NOT NULL,
  plan             TEXT,                      -- its own order as JSON; NULL: the app's
  plan_seq         INTEGER NOT NULL
) STRICT;
CREATE INDEX client_by_device ON client(device_id);
CREATE INDEX client_by_version ON client(app, version);

-- Every report, once, in the order of arrival.
CREATE TABLE event (
  seq            INTEGER PRIMARY KEY AUTOINCREMENT,
  event_id       TEXT    NOT NULL UNIQUE,
  content        TEXT    NOT NULL,            -- digest of `body`: the same id with other content is refused
  client_id      TEXT    NOT NULL REFERENCES client(client_id),
  body           TEXT    NOT NULL,
  received_at_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX event_by_client ON event(client_id, seq);

-- What the events of one database say about one migration; derived, see decide/place.rs.
CREATE TABLE client_migration (
  client_id TEXT    NOT NULL REFERENCES client(client_id),
  name      TEXT    NOT NULL,
  version   INTEGER NOT NULL,
  status    TEXT    NOT NULL,
  detail    TEXT    NOT NULL,                 -- the whole status as JSON
  seq       INTEGER NOT NULL,                 -- the newest event in it
  PRIMARY KEY (client_id, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX client_migration_by_name ON client_migration(name, status);

CREATE TABLE api_key (
  name          TEXT    NOT NULL PRIMARY KEY,
  key_hash      TEXT    NOT NULL UNIQUE,
  scope         TEXT    NOT NULL,
  created_at_ms INTEGER NOT NULL,
  revoked_at_ms INTEGER
) STRICT;

CREATE TABLE enrolment_token (
  id            INTEGER PRIMARY KEY AUTOINCREMENT,
  token_hash    TEXT    NOT NULL UNIQUE,
  app           TEXT    NOT NULL REFERENCES app(name),
  uses_left     INTEGER NOT NULL,
  created_at_ms INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  revoked_at_ms INTEGER
) STRICT;

-- Wishes to be enrolled that were granted, so that one that is asked again gets the same device. Gone when the device has
-- sent its first state.
CREATE TABLE enrolment (
  enrolment_id  TEXT    NOT NULL PRIMARY KEY,
  content       TEXT    NOT NULL,             -- digest of the request: the same id with other content is refused
  token_id      INTEGER NOT NULL REFERENCES enrolment_token(id),
  device_id     TEXT    NOT NULL REFERENCES device(device_id),
  granted_at_ms INTEGER NOT NULL
) STRICT;

-- What operators did, in the transaction that did it.
CREATE TABLE audit (
  seq    INTEGER PRIMARY KEY AUTOINCREMENT,
  at_ms  INTEGER NOT NULL,
  actor  TEXT    NOT NULL,
  action TEXT    NOT NULL,
  detail TEXT    NOT NULL
) STRICT;
