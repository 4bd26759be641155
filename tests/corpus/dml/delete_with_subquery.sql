CREATE TABLE a(id INTEGER PRIMARY KEY, k TEXT);
INSERT INTO a(k) VALUES ('x'), ('x'), ('y'), ('x'), ('y');
DELETE FROM a WHERE id NOT IN (SELECT min(id) FROM a GROUP BY k);
