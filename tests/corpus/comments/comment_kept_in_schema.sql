CREATE TABLE a(
  id INTEGER PRIMARY KEY, -- the key; never reused
  name TEXT /* as people say it */
);
CREATE VIEW v AS -- all of them
  SELECT * /* everything */ FROM a;
CREATE INDEX a_name ON a(name) -- for the list
;
