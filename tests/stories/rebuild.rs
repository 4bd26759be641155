//! No wiped children: tables rebuilt the way every tool rebuilds them, up and down.

use rusqlite::Connection;
use whimbrel_tests::{
    Device, Mig, Server, content_hash,
    device::{list, one},
};

use crate::stage;

/// A rebuild as a tool writes it.
struct Case {
    name: &'static str,
    /// The schema in front of it.
    before: &'static str,
    /// Rows the application has.
    rows: &'static str,
    up: &'static str,
    down: &'static str,
    /// One text per row that must still be there.
    children: &'static str,
    /// Whether a runner that does nothing special about it fails, or loses or changes some of them: the case bites.
    bites: bool,
}

fn check(cases: &[Case]) {
    let stage = stage();
    let server = Server::start(stage.path());
    for case in cases {
        let name = case.name;
        assert_eq!(case.bites, naive_runner_harms(case), "{name}: the case is not what it says");
        let file_name = format!("{name}.db");
        let device = Device::new(stage.path(), name, &server.url()).database(&file_name, name);
        let file = device.make(&file_name, "");
        device.enroll(&server.token(name));
        let chain = [Mig::up("0001_init", case.before).down("-- nothing\n"), Mig::up("0002_rebuild", case.up).down(case.down)];
        server.publish(name, &[Mig { down: None, ..chain[0].clone() }]);
        device.once_well();
        let app = Connection::open(&file).unwrap();
        app.execute_batch(case.rows).unwrap_or_else(|e| panic!("{name}: {e}"));
        let (children, before) = (list(&file, case.children), content_hash(&file));
        assert!(!children.is_empty());

        server.publish(name, &[Mig { down: None, ..chain[0].clone() }, chain[1].clone()]);
        device.once_well();
        assert_eq!(one::<u32>(&file, "SELECT count(*) FROM _whimbrel_migration WHERE status = 'completed'"), 2, "{name}");
        assert_eq!(list(&file, case.children), children, "{name}: children after up");
        assert_ne!(content_hash(&file), before, "{name}: up did nothing");

        server.plan(name, &serde_json::json!({ "order": "revert_down_to", "version": 1 }));
        device.once_well();
        assert_eq!(one::<String>(&file, "SELECT status FROM _whimbrel_migration WHERE version = 2"), "reverted", "{name}");
        assert_eq!(list(&file, case.children), children, "{name}: children after down");
        // The application's connection was open all the time and goes on.
        let seen = app.query_row(&format!("SELECT count(*) FROM ({})", case.children), [], |r| r.get::<_, u32>(0)).unwrap();
        assert_eq!(seen as usize, children.len(), "{name}");
        assert_eq!(app.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |r| r.get::<_, u32>(0)).unwrap(), 0, "{name}");
    }
}

/// Runs the script as a runner would that opens a transaction, with foreign keys as the library has them by default.
fn naive_runner_harms(case: &Case) -> bool {
    let file = Connection::open_in_memory().unwrap();
    file.execute_batch(case.before).and_then(|()| file.execute_batch(case.rows)).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let children = || {
        let mut statement = file.prepare(case.children)?;
        statement.query_map([], |row| row.get::<_, String>(0))?.collect::<rusqlite::Result<Vec<_>>>()
    };
    let before = children().unwrap();
    let inner = case.up.replace("BEGIN TRANSACTION;", "").replace("BEGIN;", "").replace("COMMIT;", "").replace("--> statement-breakpoint", "");
    let ran = file.execute_batch(&format!("BEGIN; {inner} COMMIT;"));
    ran.is_err() || children().ok() != Some(before)
}

const BOOKS: &str = "INSERT INTO author VALUES (1, 'a'), (2, 'b'), (3, 'c'); INSERT INTO book VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z');";
const BOOKS_READ: &str = "SELECT id || ' ' || coalesce(author_id, '-') || ' ' || title FROM book ORDER BY id";

#[test]
fn typeorm_rebuilds_keep_cascading_and_nulled_children() {
    check(&[
        Case {
            name: "typeorm-cascade",
            before: r#"CREATE TABLE "author" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar NOT NULL);
                CREATE TABLE "book" ("id" integer PRIMARY KEY NOT NULL, "author_id" integer, "title" varchar, CONSTRAINT "FK_1" FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE CASCADE ON UPDATE NO ACTION);"#,
            rows: BOOKS,
            up: r#"BEGIN TRANSACTION;
                PRAGMA foreign_keys = OFF;
                CREATE TABLE "temporary_author" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar NOT NULL, "age" integer);
                INSERT INTO "temporary_author"("id", "name") SELECT "id", "name" FROM "author";
                DROP TABLE "author";
                ALTER TABLE "temporary_author" RENAME TO "author";
                PRAGMA foreign_keys = ON;
                COMMIT;"#,
            down: r#"PRAGMA foreign_keys = OFF;
                CREATE TABLE "temporary_author" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar NOT NULL);
                INSERT INTO "temporary_author"("id", "name") SELECT "id", "name" FROM "author";
                DROP TABLE "author";
                ALTER TABLE "temporary_author" RENAME TO "author";
                PRAGMA foreign_keys = ON;"#,
            children: BOOKS_READ,
            bites: true,
        },
        Case {
            name: "typeorm-set-null",
            before: r#"CREATE TABLE "author" ("id" integer PRIMARY KEY NOT NULL, "name" varchar NOT NULL);
                CREATE TABLE "book" ("id" integer PRIMARY KEY NOT NULL, "author_id" integer, "title" varchar, CONSTRAINT "FK_2" FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE SET NULL);"#,
            rows: BOOKS,
            up: r#"CREATE TABLE "temporary_author" ("id" integer PRIMARY KEY NOT NULL, "name" text NOT NULL, CONSTRAINT "UQ" UNIQUE ("name"));
                INSERT INTO "temporary_author"("id", "name") SELECT "id", "name" FROM "author";
                DROP TABLE "author";
                ALTER TABLE "temporary_author" RENAME TO "author";"#,
            // As TypeORM really reverts: the queries of up, backwards.
            down: r#"ALTER TABLE "author" RENAME TO "temporary_author";
                CREATE TABLE "author" ("id" integer PRIMARY KEY NOT NULL, "name" varchar NOT NULL);
                INSERT INTO "author"("id", "name") SELECT "id", "name" FROM "temporary_author";
                DROP TABLE "temporary_author";"#,
            children: BOOKS_READ,
            bites: true,
        },
    ]);
}

#[test]
fn drizzle_rebuilds_keep_children_of_composite_keys() {
    check(&[
        Case {
            name: "drizzle-cascade",
            before: "CREATE TABLE `author` (`id` integer PRIMARY KEY NOT NULL, `name` text);
                CREATE TABLE `book` (`id` integer PRIMARY KEY NOT NULL, `author_id` integer, `title` text, FOREIGN KEY (`author_id`) REFERENCES `author`(`id`) ON UPDATE cascade ON DELETE cascade);",
            rows: BOOKS,
            up: "PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE `__new_author` (
	`id` integer PRIMARY KEY NOT NULL,
	`name` text NOT NULL
);
--> statement-breakpoint
INSERT INTO `__new_author`(\"id\", \"name\") SELECT \"id\", \"name\" FROM `author`;--> statement-breakpoint
DROP TABLE `author`;--> statement-breakpoint
ALTER TABLE `__new_author` RENAME TO `author`;--> statement-breakpoint
PRAGMA foreign_keys=ON;",
            down: "PRAGMA foreign_keys=OFF;
CREATE TABLE `__new_author` (`id` integer PRIMARY KEY NOT NULL, `name` text);
INSERT INTO `__new_author`(\"id\", \"name\") SELECT \"id\", \"name\" FROM `author`;
DROP TABLE `author`;
ALTER TABLE `__new_author` RENAME TO `author`;
PRAGMA foreign_keys=ON;",
            children: BOOKS_READ,
            bites: true,
        },
        Case {
            name: "drizzle-composite",
            before: "CREATE TABLE `place` (`land` text NOT NULL, `town` text NOT NULL, `size` integer, PRIMARY KEY(`land`, `town`));
                CREATE TABLE `street` (`id` integer PRIMARY KEY NOT NULL, `land` text, `town` text, `name` text, FOREIGN KEY (`land`,`town`) REFERENCES `place`(`land`,`town`) ON DELETE cascade);",
            rows: "INSERT INTO place VALUES ('at', 'linz', 1), ('de', 'ulm', 2); INSERT INTO street VALUES (1, 'at', 'linz', 'a'), (2, 'at', 'linz', 'b'), (3, 'de', 'ulm', 'c');",
            up: "PRAGMA foreign_keys=OFF;--> statement-breakpoint
CREATE TABLE `__new_place` (`land` text NOT NULL, `town` text NOT NULL, `size` integer NOT NULL DEFAULT 0, PRIMARY KEY(`land`, `town`));--> statement-breakpoint
INSERT INTO `__new_place` SELECT `land`, `town`, coalesce(`size`, 0) FROM `place`;--> statement-breakpoint
DROP TABLE `place`;--> statement-breakpoint
ALTER TABLE `__new_place` RENAME TO `place`;--> statement-breakpoint
PRAGMA foreign_keys=ON;",
            down: "CREATE TABLE `__new_place` (`land` text NOT NULL, `town` text NOT NULL, `size` integer, PRIMARY KEY(`land`, `town`));
INSERT INTO `__new_place` SELECT `land`, `town`, `size` FROM `place`;
DROP TABLE `place`;
ALTER TABLE `__new_place` RENAME TO `place`;",
            children: "SELECT id || land || town || name FROM street ORDER BY id",
            bites: true,
        },
    ]);
}

#[test]
fn prisma_rebuilds_keep_restricted_and_self_referring_rows() {
    check(&[
        Case {
            name: "prisma-restrict",
            before: r#"CREATE TABLE "author" ("id" INTEGER NOT NULL PRIMARY KEY, "name" TEXT);
                CREATE UNIQUE INDEX "author_name_key" ON "author"("name");
                CREATE TABLE "book" ("id" INTEGER NOT NULL PRIMARY KEY, "author_id" INTEGER NOT NULL, "title" TEXT, CONSTRAINT "book_author_fkey" FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE RESTRICT ON UPDATE CASCADE);"#,
            rows: BOOKS,
            up: r#"-- RedefineTables
PRAGMA defer_foreign_keys=ON;
PRAGMA foreign_keys=OFF;
CREATE TABLE "new_author" ("id" INTEGER NOT NULL PRIMARY KEY, "name" TEXT NOT NULL DEFAULT '');
INSERT INTO "new_author" ("id", "name") SELECT "id", coalesce("name", '') AS "name" FROM "author";
DROP TABLE "author";
ALTER TABLE "new_author" RENAME TO "author";
CREATE UNIQUE INDEX "author_name_key" ON "author"("name");
PRAGMA foreign_keys=ON;
PRAGMA defer_foreign_keys=OFF;
"#,
            down: r#"PRAGMA defer_foreign_keys=ON;
PRAGMA foreign_keys=OFF;
CREATE TABLE "new_author" ("id" INTEGER NOT NULL PRIMARY KEY, "name" TEXT);
INSERT INTO "new_author" ("id", "name") SELECT "id", "name" FROM "author";
DROP TABLE "author";
ALTER TABLE "new_author" RENAME TO "author";
CREATE UNIQUE INDEX "author_name_key" ON "author"("name");
PRAGMA foreign_keys=ON;
PRAGMA defer_foreign_keys=OFF;"#,
            children: BOOKS_READ,
            // RESTRICT does not act on DROP TABLE while keys are deferred: this style harms nobody.
            bites: false,
        },
        Case {
            name: "prisma-self-reference",
            before: r#"CREATE TABLE "node" ("id" INTEGER NOT NULL PRIMARY KEY, "parent_id" INTEGER, "name" TEXT, CONSTRAINT "node_parent_fkey" FOREIGN KEY ("parent_id") REFERENCES "node" ("id") ON DELETE CASCADE);
                CREATE TABLE "leaf" ("id" INTEGER NOT NULL PRIMARY KEY, "node_id" INTEGER REFERENCES "node"("id") ON DELETE CASCADE);"#,
            rows: "INSERT INTO node VALUES (1, NULL, 'root'), (2, 1, 'a'), (3, 2, 'b'), (4, 1, 'c'); INSERT INTO leaf VALUES (1, 3), (2, 4);",
            up: r#"PRAGMA defer_foreign_keys=ON;
PRAGMA foreign_keys=OFF;
CREATE TABLE "new_node" ("id" INTEGER NOT NULL PRIMARY KEY, "parent_id" INTEGER, "name" TEXT NOT NULL, CONSTRAINT "node_parent_fkey" FOREIGN KEY ("parent_id") REFERENCES "node" ("id") ON DELETE CASCADE);
INSERT INTO "new_node" ("id", "parent_id", "name") SELECT "id", "parent_id", "name" FROM "node";
DROP TABLE "node";
ALTER TABLE "new_node" RENAME TO "node";
PRAGMA foreign_keys=ON;
PRAGMA defer_foreign_keys=OFF;"#,
            down: r#"CREATE TABLE "new_node" ("id" INTEGER NOT NULL PRIMARY KEY, "parent_id" INTEGER, "name" TEXT, CONSTRAINT "node_parent_fkey" FOREIGN KEY ("parent_id") REFERENCES "node" ("id") ON DELETE CASCADE);
INSERT INTO "new_node" ("id", "parent_id", "name") SELECT "id", "parent_id", "name" FROM "node";
DROP TABLE "node";
ALTER TABLE "new_node" RENAME TO "node";"#,
            children: "SELECT 'n' || id || coalesce(parent_id, '-') || name FROM node UNION ALL SELECT 'l' || id || node_id FROM leaf ORDER BY 1",
            bites: true,
        },
    ]);
}

#[test]
fn rails_rebuilds_through_a_temporary_copy_keep_children() {
    check(&[
        Case {
            name: "rails-cascade",
            before: r#"CREATE TABLE "author" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar);
                CREATE TABLE "book" ("id" integer PRIMARY KEY NOT NULL, "author_id" integer, "title" varchar, CONSTRAINT "fk_rails_1" FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE CASCADE);"#,
            rows: BOOKS,
            up: r#"PRAGMA foreign_keys = OFF;
                PRAGMA defer_foreign_keys = ON;
                CREATE TEMPORARY TABLE "aauthor" ("id" integer NOT NULL PRIMARY KEY, "name" varchar);
                INSERT INTO "aauthor" ("id","name") SELECT "id","name" FROM "author";
                DROP TABLE "author";
                CREATE TABLE "author" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar DEFAULT 'nobody' NOT NULL);
                INSERT INTO "author" ("id","name") SELECT "id","name" FROM "aauthor";
                DROP TABLE "aauthor";
                PRAGMA defer_foreign_keys = OFF;
                PRAGMA foreign_keys = ON;"#,
            down: r#"PRAGMA foreign_keys = OFF;
                CREATE TEMPORARY TABLE "aauthor" ("id" integer NOT NULL PRIMARY KEY, "name" varchar);
                INSERT INTO "aauthor" ("id","name") SELECT "id","name" FROM "author";
                DROP TABLE "author";
                CREATE TABLE "author" ("id" integer PRIMARY KEY AUTOINCREMENT NOT NULL, "name" varchar);
                INSERT INTO "author" ("id","name") SELECT "id","name" FROM "aauthor";
                DROP TABLE "aauthor";
                PRAGMA foreign_keys = ON;"#,
            children: BOOKS_READ,
            bites: true,
        },
        Case {
            name: "rails-nullify",
            before: r#"CREATE TABLE "author" ("id" integer PRIMARY KEY NOT NULL, "name" varchar);
                CREATE TABLE "book" ("id" integer PRIMARY KEY NOT NULL, "author_id" integer, "title" varchar, FOREIGN KEY ("author_id") REFERENCES "author" ("id") ON DELETE SET NULL);
                CREATE INDEX "index_book_on_author_id" ON "book" ("author_id");"#,
            rows: BOOKS,
            up: r#"PRAGMA defer_foreign_keys = ON;
                CREATE TEMPORARY TABLE "aauthor" ("id" integer NOT NULL PRIMARY KEY, "name" varchar);
                INSERT INTO "aauthor" SELECT "id","name" FROM "author";
                DROP TABLE "author";
                CREATE TABLE "author" ("id" integer PRIMARY KEY NOT NULL, "name" varchar, "country" varchar);
                INSERT INTO "author" ("id","name") SELECT "id","name" FROM "aauthor";
                DROP TABLE "aauthor";"#,
            down: r#"ALTER TABLE "author" DROP COLUMN "country";"#,
            children: BOOKS_READ,
            bites: true,
        },
    ]);
}

#[test]
fn django_rebuilds_keep_deferred_and_self_referring_rows() {
    check(&[
        Case {
            name: "django-deferred",
            before: r#"CREATE TABLE "author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(30) NOT NULL);
                CREATE TABLE "book" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "author_id" bigint NOT NULL REFERENCES "author" ("id") DEFERRABLE INITIALLY DEFERRED, "title" varchar(30));
                CREATE INDEX "book_author_id" ON "book" ("author_id");"#,
            rows: BOOKS,
            up: r#"BEGIN;
                CREATE TABLE "new__author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(100) NOT NULL, "email" varchar(254) NULL);
                INSERT INTO "new__author" ("id", "name", "email") SELECT "id", "name", NULL FROM "author";
                DROP TABLE "author";
                ALTER TABLE "new__author" RENAME TO "author";
                COMMIT;"#,
            down: r#"BEGIN;
                CREATE TABLE "new__author" ("id" integer NOT NULL PRIMARY KEY AUTOINCREMENT, "name" varchar(30) NOT NULL);
                INSERT INTO "new__author" ("id", "name") SELECT "id", "name" FROM "author";
                DROP TABLE "author";
                ALTER TABLE "new__author" RENAME TO "author";
                COMMIT;"#,
            children: BOOKS_READ,
            bites: true,
        },
        Case {
            name: "django-self-set-null",
            before: r#"CREATE TABLE "topic" ("id" integer NOT NULL PRIMARY KEY, "above_id" integer NULL REFERENCES "topic" ("id") ON DELETE SET NULL, "name" varchar(30));
                CREATE TABLE "post" ("id" integer NOT NULL PRIMARY KEY, "topic_id" integer NULL REFERENCES "topic" ("id") ON DELETE SET NULL);"#,
            rows: "INSERT INTO topic VALUES (1, NULL, 'a'), (2, 1, 'b'), (3, 2, 'c'); INSERT INTO post VALUES (1, 2), (2, 3), (3, NULL);",
            up: r#"CREATE TABLE "new__topic" ("id" integer NOT NULL PRIMARY KEY, "above_id" integer NULL REFERENCES "topic" ("id") ON DELETE SET NULL, "name" varchar(60));
                INSERT INTO "new__topic" ("id", "above_id", "name") SELECT "id", "above_id", "name" FROM "topic";
                DROP TABLE "topic";
                ALTER TABLE "new__topic" RENAME TO "topic";"#,
            down: r#"CREATE TABLE "new__topic" ("id" integer NOT NULL PRIMARY KEY, "above_id" integer NULL REFERENCES "topic" ("id") ON DELETE SET NULL, "name" varchar(30));
                INSERT INTO "new__topic" ("id", "above_id", "name") SELECT "id", "above_id", "name" FROM "topic";
                DROP TABLE "topic";
                ALTER TABLE "new__topic" RENAME TO "topic";"#,
            children: "SELECT 't' || id || coalesce(above_id, '-') FROM topic UNION ALL SELECT 'p' || id || coalesce(topic_id, '-') FROM post ORDER BY 1",
            bites: true,
        },
    ]);
}

#[test]
fn hand_written_rebuilds_keep_children_whatever_their_keys_do() {
    check(&[
        Case {
            name: "hand-twelve-steps",
            before: "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT);
                CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author ON DELETE CASCADE, title TEXT);
                CREATE INDEX author_name ON author(name);
                CREATE TRIGGER author_named AFTER UPDATE OF name ON author BEGIN UPDATE book SET title = title || '!' WHERE author_id = new.id; END;
                CREATE VIEW shelf AS SELECT a.name, b.title FROM author a JOIN book b ON b.author_id = a.id;",
            rows: BOOKS,
            up: "PRAGMA foreign_keys=OFF;
                BEGIN TRANSACTION;
                DROP VIEW shelf;
                CREATE TABLE new_author(id INTEGER PRIMARY KEY, name TEXT COLLATE NOCASE, CHECK (length(name) < 100));
                INSERT INTO new_author SELECT id, name FROM author;
                DROP TABLE author;
                ALTER TABLE new_author RENAME TO author;
                CREATE INDEX author_name ON author(name);
                CREATE TRIGGER author_named AFTER UPDATE OF name ON author BEGIN UPDATE book SET title = title || '!' WHERE author_id = new.id; END;
                CREATE VIEW shelf AS SELECT a.name, b.title FROM author a JOIN book b ON b.author_id = a.id;
                COMMIT;
                PRAGMA foreign_keys=ON;",
            down: "DROP VIEW shelf;
                CREATE TABLE new_author(id INTEGER PRIMARY KEY, name TEXT);
                INSERT INTO new_author SELECT id, name FROM author;
                DROP TABLE author;
                ALTER TABLE new_author RENAME TO author;
                CREATE INDEX author_name ON author(name);
                CREATE TRIGGER author_named AFTER UPDATE OF name ON author BEGIN UPDATE book SET title = title || '!' WHERE author_id = new.id; END;
                CREATE VIEW shelf AS SELECT a.name, b.title FROM author a JOIN book b ON b.author_id = a.id;",
            children: BOOKS_READ,
            bites: true,
        },
        Case {
            name: "hand-grandchildren",
            before: "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT);
                CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
                CREATE TABLE page(id INTEGER PRIMARY KEY, book_id INTEGER REFERENCES book(id) ON DELETE CASCADE);",
            rows: "INSERT INTO author VALUES (1, 'a'), (2, 'b'); INSERT INTO book VALUES (1, 1, 'x'), (2, 2, 'y'); INSERT INTO page VALUES (1, 1), (2, 1), (3, 2);",
            // Parent and child in one migration.
            up: "PRAGMA foreign_keys=OFF;
                CREATE TABLE n1(id INTEGER PRIMARY KEY, name TEXT NOT NULL); INSERT INTO n1 SELECT * FROM author; DROP TABLE author; ALTER TABLE n1 RENAME TO author;
                CREATE TABLE n2(id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE, title TEXT);
                INSERT INTO n2 SELECT * FROM book; DROP TABLE book; ALTER TABLE n2 RENAME TO book;
                PRAGMA foreign_keys=ON;",
            down: "CREATE TABLE n2(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
                INSERT INTO n2 SELECT * FROM book; DROP TABLE book; ALTER TABLE n2 RENAME TO book;
                CREATE TABLE n1(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO n1 SELECT * FROM author; DROP TABLE author; ALTER TABLE n1 RENAME TO author;",
            children: "SELECT 'b' || id || author_id || title FROM book UNION ALL SELECT 'p' || id || book_id FROM page ORDER BY 1",
            bites: true,
        },
        Case {
            name: "hand-composite-set-null",
            before: "CREATE TABLE place(land TEXT, town TEXT, PRIMARY KEY (land, town)) WITHOUT ROWID;
                CREATE TABLE street(id INTEGER PRIMARY KEY, land TEXT, town TEXT, FOREIGN KEY (land, town) REFERENCES place ON DELETE SET NULL ON UPDATE CASCADE);",
            rows: "INSERT INTO place VALUES ('at', 'linz'), ('de', 'ulm'); INSERT INTO street VALUES (1, 'at', 'linz'), (2, 'de', 'ulm'), (3, NULL, NULL);",
            up: "CREATE TABLE place_new(land TEXT NOT NULL, town TEXT NOT NULL, mayor TEXT, PRIMARY KEY (land, town)) WITHOUT ROWID;
                INSERT INTO place_new SELECT land, town, NULL FROM place; DROP TABLE place; ALTER TABLE place_new RENAME TO place;",
            down: "CREATE TABLE place_new(land TEXT, town TEXT, PRIMARY KEY (land, town)) WITHOUT ROWID;
                INSERT INTO place_new SELECT land, town FROM place; DROP TABLE place; ALTER TABLE place_new RENAME TO place;",
            children: "SELECT id || coalesce(land, '-') || coalesce(town, '-') FROM street ORDER BY id",
            bites: true,
        },
        Case {
            name: "hand-rename-first",
            before: "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT);
                CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER DEFAULT 3 REFERENCES author(id) ON DELETE SET DEFAULT, title TEXT);",
            rows: BOOKS,
            up: "PRAGMA foreign_keys=OFF; PRAGMA legacy_alter_table=ON;
                ALTER TABLE author RENAME TO old_author;
                CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT, born INTEGER);
                INSERT INTO author SELECT id, name, NULL FROM old_author;
                DROP TABLE old_author;
                PRAGMA legacy_alter_table=OFF; PRAGMA foreign_keys=ON;",
            down: "PRAGMA legacy_alter_table=ON;
                ALTER TABLE author RENAME TO old_author;
                CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT);
                INSERT INTO author SELECT id, name FROM old_author;
                DROP TABLE old_author;
                PRAGMA legacy_alter_table=OFF;",
            children: BOOKS_READ,
            bites: true,
        },
    ]);
}

#[test]
fn rows_that_would_refer_to_nothing_are_refused_and_named() {
    let stage = stage();
    let (server, device) = crate::pair(&stage, "");
    let file = device.path("notes.db");
    let init = Mig::up(
        "0001_init",
        "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);",
    );
    server.publish("notes", std::slice::from_ref(&init));
    device.once_well();
    Connection::open(&file).unwrap().execute_batch(BOOKS).unwrap();
    let before = content_hash(&file);
    server.publish("notes", &[init, Mig::up("0002_forgets", "CREATE TABLE n(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO n SELECT * FROM author WHERE id <> 2; DROP TABLE author; ALTER TABLE n RENAME TO author;")]);
    device.once().says(4, &["0002_forgets", "foreign key", "book row 3", "author"]);
    assert_eq!(content_hash(&file), before);
}

#[test]
fn rows_that_referred_to_nothing_before_are_tolerated_and_stay() {
    let stage = stage();
    let (server, device) = crate::pair(&stage, "");
    let file = device.path("notes.db");
    let init = Mig::up(
        "0001_init",
        "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);",
    );
    server.publish("notes", std::slice::from_ref(&init));
    device.once_well();
    let app = Connection::open(&file).unwrap();
    app.execute_batch(&format!("PRAGMA foreign_keys=OFF; {BOOKS} INSERT INTO book VALUES (4, 77, 'orphan'), (5, 78, 'orphan');")).unwrap();
    let rebuild = "CREATE TABLE n(id INTEGER PRIMARY KEY, name TEXT, born INTEGER); INSERT INTO n(id, name) SELECT * FROM author; DROP TABLE author; ALTER TABLE n RENAME TO author;";
    let harm = "DELETE FROM author WHERE id = 1;";
    server.publish("notes", &[init.clone(), Mig::up("0002_rebuild", rebuild)]);
    device.once_well();
    assert_eq!(list(&file, BOOKS_READ).len(), 5);
    // And a new one is still told from an old one.
    server.publish("notes", &[init, Mig::up("0002_rebuild", rebuild), Mig::up("0003_harm", harm)]);
    device.once().says(4, &["0003_harm", "2 rows", "book row 1", "book row 2"]);
    assert_eq!(list(&file, BOOKS_READ).len(), 5);
}
