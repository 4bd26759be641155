CREATE TABLE a(x, changed INTEGER DEFAULT 0);
CREATE TRIGGER a_touch AFTER UPDATE OF x ON a BEGIN UPDATE a SET changed = changed + 1 WHERE rowid = new.rowid; END;
INSERT INTO a(x) VALUES (1);
UPDATE a SET x = 2;
DROP TRIGGER a_touch;
UPDATE a SET x = 3;
CREATE TRIGGER a_touch AFTER UPDATE OF x ON a BEGIN UPDATE a SET changed = changed + 10 WHERE rowid = new.rowid; END;
UPDATE a SET x = 4;
DROP TRIGGER IF EXISTS never_was;
