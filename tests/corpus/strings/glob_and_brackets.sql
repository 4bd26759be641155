CREATE TABLE a(x);
INSERT INTO a VALUES ('a[1]'), ('b'), ('c;');
DELETE FROM a WHERE x GLOB '[b]*';
UPDATE a SET x = x || ']' WHERE x GLOB '*[[]1]';
