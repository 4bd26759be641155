CREATE TABLE IF NOT EXISTS "users" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "email" varchar DEFAULT '' NOT NULL, "admin" boolean DEFAULT 0 NOT NULL /*application='Shop'*/, "created_at" datetime(6) NOT NULL);
CREATE UNIQUE INDEX "index_users_on_email" ON "users" ("email") /*application='Shop'*/;
CREATE TABLE IF NOT EXISTS "roles" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "user_id" integer NOT NULL, CONSTRAINT "fk_rails_ab35d699f0" FOREIGN KEY ("user_id") REFERENCES "users" ("id"));
INSERT INTO "users"("email", "created_at") VALUES ('a;', '2024-01-01');
