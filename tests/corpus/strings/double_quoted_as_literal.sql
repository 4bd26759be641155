CREATE TABLE a(x TEXT, y TEXT);
INSERT INTO a(x, y) VALUES ("no such column", "a;b");
