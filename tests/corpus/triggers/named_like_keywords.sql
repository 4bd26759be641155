CREATE TABLE "order"(id INTEGER PRIMARY KEY, "group" TEXT);
CREATE TRIGGER "trigger" AFTER INSERT ON "order" BEGIN UPDATE "order" SET "group" = 'select' WHERE id = new.id; END;
INSERT INTO "order"("group") VALUES ('from');
