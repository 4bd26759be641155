CREATE TABLE `users` (`id` integer not null primary key autoincrement, `name` varchar(255), `age` integer);
INSERT INTO `users`(`name`, `age`) VALUES ('a', 1), ('b', 2);
CREATE TABLE `_knex_temp_alter829` (`id` integer not null primary key autoincrement, `name` varchar(255) NOT NULL, `age` integer);
INSERT INTO "_knex_temp_alter829" SELECT * FROM "users";
DROP TABLE "users";
ALTER TABLE "_knex_temp_alter829" RENAME TO "users";
