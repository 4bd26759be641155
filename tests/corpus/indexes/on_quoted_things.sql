CREATE TABLE "t;t"("a b" TEXT, [c] INTEGER);
CREATE UNIQUE INDEX "i;i" ON "t;t"("a b", [c]) WHERE "c" > 0;
INSERT INTO "t;t" VALUES ('x', 1), ('x', 0), ('x', 0);
