-- needs 3.41.0: unhex
CREATE TABLE a(x BLOB); INSERT INTO a VALUES (unhex('00ff')), (unhex('AB-CD', '-'));
