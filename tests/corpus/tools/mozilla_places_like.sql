CREATE TABLE moz_places (id INTEGER PRIMARY KEY, url LONGVARCHAR, rev_host LONGVARCHAR, visit_count INTEGER DEFAULT 0, hidden INTEGER DEFAULT 0 NOT NULL, frecency INTEGER DEFAULT -1 NOT NULL, guid TEXT);
CREATE TABLE moz_updateoriginsdelete_temp (prefix TEXT NOT NULL, host TEXT NOT NULL, PRIMARY KEY (prefix, host)) WITHOUT ROWID;
CREATE INDEX moz_places_hostindex ON moz_places (rev_host);
CREATE UNIQUE INDEX moz_places_guid_uniqueindex ON moz_places (guid);
CREATE TRIGGER moz_places_afterdelete AFTER DELETE ON moz_places FOR EACH ROW BEGIN
  INSERT OR IGNORE INTO moz_updateoriginsdelete_temp (prefix, host)
  VALUES (CASE WHEN OLD.url LIKE 'https://%' THEN 'https://' ELSE 'http://' END, OLD.rev_host);
END;
INSERT INTO moz_places(url, rev_host) VALUES ('https://a;b', 'b.a'), ('http://c', 'c');
DELETE FROM moz_places WHERE id = 1;
