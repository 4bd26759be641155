CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
INSERT INTO author VALUES (1, 'a'), (2, 'b'); INSERT INTO book VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z;');

PRAGMA foreign_keys=OFF;
BEGIN TRANSACTION;
CREATE TABLE new_author(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
INSERT INTO new_author SELECT id, name FROM author;
DROP TABLE author;
ALTER TABLE new_author RENAME TO author;
PRAGMA foreign_key_check;
COMMIT;
PRAGMA foreign_keys=ON;
