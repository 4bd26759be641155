CREATE TABLE a(x);
INSERT INTO a VALUES ('-- not a comment; at all'), ('/* nor'), ('this */');
