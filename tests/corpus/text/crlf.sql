CREATE TABLE a(
  x TEXT,
  y INTEGER
);

INSERT INTO a VALUES ('a;', 1);
