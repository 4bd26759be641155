CREATE TABLE tree(id INTEGER PRIMARY KEY, parent INTEGER, depth INTEGER);
CREATE TRIGGER tree_depth AFTER INSERT ON tree BEGIN
  UPDATE tree SET depth = (
    WITH RECURSIVE up(id, n) AS (
      SELECT new.id, 0 UNION ALL SELECT t.parent, n + 1 FROM tree t JOIN up ON t.id = up.id WHERE t.parent IS NOT NULL
    ) SELECT max(n) FROM up
  ) WHERE id = new.id;
END;
INSERT INTO tree(id, parent) VALUES (1, NULL);
INSERT INTO tree(id, parent) VALUES (2, 1);
INSERT INTO tree(id, parent) VALUES (3, 2);
