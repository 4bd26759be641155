CREATE TABLE "a;b"("c;d" INTEGER, "e""f" TEXT);
INSERT INTO "a;b"("c;d", "e""f") VALUES (1, 'x');
CREATE INDEX "i;j" ON "a;b"("c;d");
