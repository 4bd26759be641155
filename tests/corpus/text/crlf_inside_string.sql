CREATE TABLE a(x TEXT);
INSERT INTO a VALUES ('one;
two');
