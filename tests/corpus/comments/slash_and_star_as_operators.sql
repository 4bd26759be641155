CREATE TABLE a(x);
INSERT INTO a VALUES (6 / 2 * 3), (6/2*3), ((6)/ (2));
