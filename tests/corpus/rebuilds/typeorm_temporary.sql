CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
INSERT INTO author VALUES (1, 'a'), (2, 'b'); INSERT INTO book VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z;');

CREATE TABLE "temporary_book" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "author_id" integer, "title" varchar, "pages" integer, CONSTRAINT "FK_66a4f0f47943a0d99c16ecf90b2" FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE CASCADE ON UPDATE NO ACTION);
INSERT INTO "temporary_book"("id", "author_id", "title") SELECT "id", "author_id", "title" FROM "book";
DROP TABLE "book";
ALTER TABLE "temporary_book" RENAME TO "book";
