-- this; is; not; a; statement;
CREATE TABLE a(x); -- nor; is; this
-- CREATE TABLE b(x);
INSERT INTO a VALUES (1);
