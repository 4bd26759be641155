CREATE TABLE node(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node(id) ON DELETE CASCADE, name TEXT);
INSERT INTO node VALUES (1, NULL, 'r'), (2, 1, 'c'), (3, 2, 'd');
PRAGMA foreign_keys = off;
CREATE TABLE node_2(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES node_2(id) ON DELETE CASCADE, name TEXT NOT NULL);
INSERT INTO node_2 SELECT id, parent, name FROM node;
DROP TABLE node;
ALTER TABLE node_2 RENAME TO node;
PRAGMA foreign_keys = on;
