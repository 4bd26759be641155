CREATE TABLE "users" ("id" INTEGER PRIMARY KEY AUTOINCREMENT, "email" TEXT UNIQUE, "revision" INTEGER NOT NULL DEFAULT 1);
CREATE TRIGGER "users_revision"
AFTER UPDATE ON "users"
FOR EACH ROW
WHEN NEW."revision" = OLD."revision"
BEGIN
    UPDATE "users" SET "revision" = OLD."revision" + 1 WHERE "id" = OLD."id";
END;
INSERT INTO "users" ("email") VALUES ('a@example.org'), ('b@example.org');
UPDATE "users" SET "email" = 'c@example.org' WHERE "id" = 2;
