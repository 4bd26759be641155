CREATE TABLE a(k TEXT PRIMARY KEY, v INTEGER, n INTEGER DEFAULT 1);
INSERT INTO a(k, v) VALUES ('x', 5), ('y', 1);
INSERT INTO a(k, v) VALUES ('x', 3), ('y', 7)
  ON CONFLICT (k) DO UPDATE SET v = excluded.v, n = n + 1 WHERE excluded.v > a.v;
