CREATE TABLE doc(id INTEGER PRIMARY KEY, slug TEXT, deleted_at TEXT);
INSERT INTO doc(slug, deleted_at) VALUES ('a', NULL), ('a', '2020-01-01'), ('a', '2021-01-01');
CREATE UNIQUE INDEX doc_slug ON doc(slug) WHERE deleted_at IS NULL;
INSERT OR IGNORE INTO doc(slug) VALUES ('a'), ('b');
