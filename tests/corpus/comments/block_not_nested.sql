/* one /* two */
CREATE TABLE a(x);
INSERT INTO a VALUES (1) /* end /* */;
