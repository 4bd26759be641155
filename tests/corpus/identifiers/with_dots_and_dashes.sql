CREATE TABLE "my-app.users"("user.name" TEXT, "e-mail" TEXT);
INSERT INTO "my-app.users" VALUES ('a', 'b');
CREATE UNIQUE INDEX "my-app.users.e-mail" ON "my-app.users"("e-mail");
