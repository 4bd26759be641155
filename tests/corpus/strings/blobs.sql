CREATE TABLE a(b BLOB);
INSERT INTO a VALUES (x'00ff'), (X'DEADBEEF'), (x''), (X'3B3B'), (zeroblob(5)), (CAST('text' AS BLOB));
