CREATE TABLE "table"("select" INTEGER, "from" TEXT, "where" TEXT, "index" INTEGER, "commit" TEXT);
INSERT INTO "table" VALUES (1, 'f', 'w', 2, 'c');
CREATE INDEX "create" ON "table"("index");
CREATE VIEW "view" AS SELECT "select", "commit" FROM "table";
