CREATE TABLE "t1"([c1] INTEGER, `c2` TEXT, 'c3' REAL, c4 BLOB);
INSERT INTO [t1](`c1`, 'c2', "c3", [c4]) VALUES (1, 'two', 3.0, x'04');
UPDATE `t1` SET [c2] = "c1" || ';' WHERE "c1" = 1;
