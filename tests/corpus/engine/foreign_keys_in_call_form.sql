PRAGMA foreign_keys(off);
PRAGMA main.foreign_keys = 'no';
CREATE TABLE p(id INTEGER PRIMARY KEY); INSERT INTO p VALUES (1);
PRAGMA foreign_keys("yes");
pragma defer_foreign_keys(true);
