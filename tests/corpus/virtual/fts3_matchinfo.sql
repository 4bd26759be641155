CREATE VIRTUAL TABLE IF NOT EXISTS f3 USING fts3(subject TEXT, body TEXT);
INSERT INTO f3(docid, subject, body) VALUES (10, 'a', 'one'), (20, 'b', 'two;');
UPDATE f3 SET body = 'three' WHERE docid = 20;
