CREATE TABLE measure(at INTEGER PRIMARY KEY, value REAL NOT NULL, unit TEXT, raw BLOB, extra ANY) STRICT;
INSERT INTO measure VALUES (1, 2, 'm', x'00', 'anything'), (2, 2.5, NULL, NULL, 7);
