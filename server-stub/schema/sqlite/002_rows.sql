-- Rows of the applications' own tables. A released file never changes: the next change is 003_*.sql.

-- The sets of rows that databases exchange. `seq` is taken by updating the row and held to COMMIT, so commit order is
-- sequence order.
CREATE TABLE space (
  id      INTEGER PRIMARY KEY AUTOINCREMENT,
  app     TEXT    NOT NULL REFERENCES app(name),
  name    TEXT    NOT NULL,
  epoch   INTEGER NOT NULL,                   -- grows when the count begins anew: this store was restored
  seq     INTEGER NOT NULL,                   -- the last number given
  horizon INTEGER NOT NULL,                   -- deletions up to this number are forgotten
  UNIQUE (app, name)
) STRICT;

-- The space that an enrolment binds the device's databases of the app to.
ALTER TABLE enrolment_token ADD COLUMN space TEXT NOT NULL DEFAULT 'default';
ALTER TABLE device_app ADD COLUMN space TEXT NOT NULL DEFAULT 'default';

-- A database that exchanges rows. Bound to one space at its first exchange, or by an operator's word.
CREATE TABLE synced_client (
  client_id TEXT    NOT NULL PRIMARY KEY REFERENCES client(client_id),
  space_id  INTEGER NOT NULL REFERENCES space(id),
  epoch     INTEGER NOT NULL,                 -- the newest that it pushed in
  last_push INTEGER NOT NULL                  -- the order of its last push of that epoch
) STRICT;

-- Who wrote something: a database in one of its epochs, as a short number.
CREATE TABLE writer (
  id        INTEGER PRIMARY KEY,
  client_id TEXT    NOT NULL REFERENCES client(client_id),
  epoch     INTEGER NOT NULL,
  UNIQUE (client_id, epoch)
) STRICT;

-- Every row by its version, so that a pull reads on where it stopped. `key` compares as the table's key does; `record` has
-- key, cells by column id with their versions, clocks and writers, or who deleted it and when: see record.rs.
CREATE TABLE synced_row (
  space_id      INTEGER NOT NULL REFERENCES space(id),
  version       INTEGER NOT NULL,
  table_id      INTEGER NOT NULL,
  key           BLOB    NOT NULL,
  record        BLOB    NOT NULL,
  deleted_at_ms INTEGER,
  PRIMARY KEY (space_id, version)
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX synced_row_by_key ON synced_row(space_id, table_id, key);
CREATE INDEX synced_row_deleted ON synced_row(deleted_at_ms) WHERE deleted_at_ms IS NOT NULL;

-- The values of unique sets in use. `columns` are the set's ids; a set is filled when a push first meets it.
CREATE TABLE unique_set (
  id       INTEGER PRIMARY KEY,
  space_id INTEGER NOT NULL REFERENCES space(id),
  table_id INTEGER NOT NULL,
  columns  TEXT    NOT NULL,
  UNIQUE (space_id, table_id, columns)
) STRICT;
CREATE TABLE unique_value (
  set_id INTEGER NOT NULL REFERENCES unique_set(id),
  value  BLOB    NOT NULL,
  key    BLOB    NOT NULL,
  PRIMARY KEY (set_id, value)
) STRICT, WITHOUT ROWID;

-- Pushes that were answered, with their answers: the same id gets the same answer.
CREATE TABLE push (
  push_id   TEXT    NOT NULL PRIMARY KEY,
  client_id TEXT    NOT NULL REFERENCES client(client_id),
  content   TEXT    NOT NULL,                 -- the same id with other content is refused
  answer    TEXT    NOT NULL,
  at_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX push_by_time ON push(at_ms);

-- What did not go without a word: conflicts with both sides, and changes that are kept and not written.
CREATE TABLE kept_change (
  id        INTEGER PRIMARY KEY AUTOINCREMENT,
  space_id  INTEGER NOT NULL REFERENCES space(id),
  client_id TEXT    NOT NULL REFERENCES client(client_id),
  table_id  INTEGER NOT NULL,
  key       BLOB    NOT NULL,
  kind      TEXT    NOT NULL,
  open      INTEGER NOT NULL,                 -- 1: waits for the client or a person; 0: a strategy decided it
  detail    TEXT    NOT NULL,
  at_ms     INTEGER NOT NULL
) STRICT;
CREATE INDEX kept_change_by_row ON kept_change(client_id, open, space_id, table_id, key);
CREATE INDEX kept_change_by_time ON kept_change(at_ms);
