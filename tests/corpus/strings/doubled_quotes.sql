CREATE TABLE a(x TEXT);
INSERT INTO a VALUES ('it''s'), (''''), (''''''), (''), ('''a'''), ('a''; b');
