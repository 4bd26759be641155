CREATE TABLE größe(名前 TEXT, é INTEGER);
INSERT INTO größe VALUES ('x', 1);
CREATE INDEX größe_名前 ON größe(名前);
CREATE VIEW übersicht AS SELECT 名前 FROM größe;
