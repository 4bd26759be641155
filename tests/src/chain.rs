//! A long chain of migrations of every kind, heavy enough that a run takes a while.

use crate::migrations::Mig;

/// How many there are.
pub const LENGTH: u32 = 50;

/// Fifty migrations: tables, data, rebuilds of a parent whose children cascade, columns, indexes, views and triggers.
/// `rows` is the number of books; each author has ten, each book two reviews.
pub fn fifty(rows: u32) -> Vec<Mig> {
    let authors = rows / 10;
    let count = |n: u32| format!("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {n})");
    let mut chain = vec![
        Mig::up(
            "0001_init",
            "CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT NOT NULL, born INTEGER);
             CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE, title TEXT NOT NULL, pages INTEGER);
             CREATE TABLE review(id INTEGER PRIMARY KEY AUTOINCREMENT, book_id INTEGER REFERENCES book(id) ON DELETE SET NULL, stars INTEGER CHECK (stars BETWEEN 1 AND 5), body TEXT);
             CREATE TABLE log(id INTEGER PRIMARY KEY, body TEXT);
             CREATE TABLE step(version INTEGER, note TEXT);",
        ),
        Mig::up(
            "0002_rows",
            format!(
                "{} INSERT INTO author SELECT i, 'author ' || i, 1900 + i % 100 FROM n;
                 {} INSERT INTO book SELECT i, 1 + i % {authors}, 'title ' || i, 100 + i % 400 FROM n;
                 {} INSERT INTO review(book_id, stars, body) SELECT 1 + i % {rows}, 1 + i % 5, 'review ' || i FROM n;",
                count(authors),
                count(rows),
                count(2 * rows)
            ),
        ),
    ];
    for version in 3..=LENGTH {
        // What every kind does besides: a row that shows if it ran twice, or not.
        let mark = format!("INSERT INTO step VALUES ({version}, 'seen ' || (SELECT count(*) FROM step));");
        let name = |what: &str| format!("{version:04}_{what}");
        let mig = match version % 8 {
            3 => Mig::up(&name("add_column"), format!("ALTER TABLE book ADD COLUMN c{version} INTEGER DEFAULT {version}; {mark}")),
            4 => Mig::up(
                &name("fill"),
                format!("UPDATE book SET c{} = pages + c{} * 2 WHERE id % 3 = {}; {mark}", version - 1, version - 1, version % 3),
            ),
            5 => Mig::up(
                &name("rebuild_author"),
                format!(
                    "PRAGMA foreign_keys=OFF;
                     CREATE TABLE author_new(id INTEGER PRIMARY KEY, name TEXT NOT NULL, born INTEGER{});
                     INSERT INTO author_new SELECT *, {version} FROM author;
                     DROP TABLE author;
                     ALTER TABLE author_new RENAME TO author;
                     PRAGMA foreign_keys=ON; {mark}",
                    (5..=version).step_by(8).map(|v| format!(", a{v} INTEGER")).collect::<String>()
                ),
            ),
            6 => Mig::up(&name("index"), format!("CREATE INDEX i{version} ON review(stars, book_id) WHERE id % {version} = 0; {mark}")),
            7 => Mig::up(
                &name("view_and_trigger"),
                format!(
                    "CREATE VIEW v{version} AS SELECT a.name, count(*) AS books FROM author a JOIN book b ON b.author_id = a.id GROUP BY a.id;
                     CREATE TRIGGER t{version} AFTER INSERT ON log WHEN new.body = '{version}' BEGIN INSERT INTO step VALUES (-{version}, new.body); END;
                     INSERT INTO log(body) VALUES ('{version}'); {mark}"
                ),
            ),
            0 => Mig::up(&name("drop_view"), format!("DROP VIEW v{}; DROP TRIGGER t{}; {mark}", version - 1, version - 1)),
            1 => Mig::up(
                &name("insert_select"),
                format!("INSERT INTO review(book_id, stars, body) SELECT id, 3, 'at {version}' FROM book WHERE id % 11 = {}; {mark}", version % 11),
            ),
            _ => Mig::up(&name("update_all"), format!("UPDATE review SET body = body || '.' WHERE id % 2 = {}; {mark}", version % 2)),
        };
        chain.push(mig);
    }
    chain
}

/// Small migrations of which a device does many: a table, an index and a row each.
pub fn small(length: u32) -> Vec<Mig> {
    (1..=length)
        .map(|v| {
            Mig::up(
                &format!("{v:04}_small"),
                format!(
                    "CREATE TABLE t{v}(id INTEGER PRIMARY KEY, name TEXT NOT NULL, at INTEGER);\nCREATE INDEX t{v}_name ON t{v}(name);\nINSERT INTO t{v}(name, at) VALUES ('first', {v});\n"
                ),
            )
        })
        .collect()
}
