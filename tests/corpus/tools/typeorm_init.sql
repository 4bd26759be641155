CREATE TABLE "photo" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar(100) NOT NULL, "views" double NOT NULL DEFAULT (0), "isPublished" boolean NOT NULL DEFAULT (1), "at" datetime, CONSTRAINT "UQ_1" UNIQUE ("name"));
CREATE INDEX "IDX_5b4dcb" ON "photo" ("name", "views");
INSERT INTO "photo"("name") VALUES ('Me; and bears');
