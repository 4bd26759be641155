CREATE TABLE a(b BLOB, h TEXT); INSERT INTO a(b) VALUES (x'0102ff'), (x'');
UPDATE a SET h = hex(b) || ';' || quote(b);
