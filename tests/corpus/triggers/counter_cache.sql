CREATE TABLE post(id INTEGER PRIMARY KEY, comments INTEGER NOT NULL DEFAULT 0);
CREATE TABLE comment(id INTEGER PRIMARY KEY, post_id INTEGER NOT NULL REFERENCES post(id));
CREATE TRIGGER comment_up AFTER INSERT ON comment BEGIN UPDATE post SET comments = comments + 1 WHERE id = new.post_id; END;
CREATE TRIGGER comment_down AFTER DELETE ON comment BEGIN UPDATE post SET comments = comments - 1 WHERE id = old.post_id; END;
CREATE TRIGGER comment_moved AFTER UPDATE OF post_id ON comment BEGIN
  UPDATE post SET comments = comments - 1 WHERE id = old.post_id;
  UPDATE post SET comments = comments + 1 WHERE id = new.post_id;
END;
INSERT INTO post(id) VALUES (1), (2);
INSERT INTO comment(post_id) VALUES (1), (1), (2);
UPDATE comment SET post_id = 2 WHERE id = 1;
DELETE FROM comment WHERE id = 3;
