CREATE TABLE tags(post INTEGER, tags TEXT); INSERT INTO tags VALUES (1, 'a;b;c'), (2, ''), (3, 'd');
CREATE TABLE tag(post INTEGER, tag TEXT);
WITH RECURSIVE s(post, word, rest) AS (
  SELECT post, '', tags || ';' FROM tags
  UNION ALL
  SELECT post, substr(rest, 1, instr(rest, ';') - 1), substr(rest, instr(rest, ';') + 1) FROM s WHERE rest <> ''
)
INSERT INTO tag SELECT post, word FROM s WHERE word <> '';
