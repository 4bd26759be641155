CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, "author_id" INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
INSERT INTO author VALUES (1, 'a'), (2, 'b'); INSERT INTO book VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z;');

-- RedefineTables
PRAGMA defer_foreign_keys=ON;
PRAGMA foreign_keys=OFF;
CREATE TABLE "new_author" (
    "id" INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    "name" TEXT NOT NULL DEFAULT 'unknown'
);
INSERT INTO "new_author" ("id", "name") SELECT "id", coalesce("name", 'unknown') AS "name" FROM "author";
DROP TABLE "author";
ALTER TABLE "new_author" RENAME TO "author";
CREATE UNIQUE INDEX "author_name_key" ON "author"("name");
PRAGMA foreign_keys=ON;
PRAGMA defer_foreign_keys=OFF;
