CREATE VIRTUAL TABLE f4 USING fts4(a, b, tokenize=porter);
INSERT INTO f4 VALUES ('running; dogs', 'b'), ('cats', 'c');
INSERT INTO f4(f4) VALUES ('optimize');
DELETE FROM f4 WHERE f4 MATCH 'cat';
