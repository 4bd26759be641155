CREATE TABLE "a
b"("c
d" INTEGER, "" TEXT);
INSERT INTO "a
b" VALUES (1, 'x');
