CREATE TABLE a(x TEXT);
INSERT INTO a VALUES ('a	b;'), ('ab'), (''), (char(0) || 'after nul');
