-- What is signed of each app's repository, as the exact bytes that are served. Every root is kept: a device that was away walks
-- through all of them. Of the others the newest few, for who is in the middle of fetching.
CREATE TABLE metadata (
  app           TEXT    NOT NULL REFERENCES app(name),
  role          TEXT    NOT NULL,
  version       INTEGER NOT NULL,
  expires_at_ms INTEGER NOT NULL,
  body          BLOB    NOT NULL,
  PRIMARY KEY (app, role, version)
) STRICT;
