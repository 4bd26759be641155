CREATE TABLE 'a b'('c d' INTEGER, 'e' TEXT);
INSERT INTO 'a b'('c d', 'e') VALUES (1, 'x;');
CREATE INDEX 'i' ON 'a b'('e');
