CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
INSERT INTO author VALUES (1, 'a'), (2, 'b'); INSERT INTO book VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z;');

BEGIN;
--
-- Alter field name on author
--
CREATE TABLE "new__author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(200) NOT NULL);
INSERT INTO "new__author" ("id", "name") SELECT "id", coalesce("name", '') FROM "author";
DROP TABLE "author";
ALTER TABLE "new__author" RENAME TO "author";
CREATE INDEX "author_name_1f2a" ON "author" ("name");
COMMIT;
