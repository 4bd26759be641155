CREATE TABLE a(x);
INSERT INTO a VALUES (5 - -3), (5 - - 3), (- -1), (5--3
+2);
