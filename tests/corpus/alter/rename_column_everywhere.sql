CREATE TABLE a(old INTEGER CHECK (old > 0), other TEXT);
CREATE INDEX a_old ON a(old) WHERE old > 1;
CREATE VIEW v AS SELECT old FROM a;
CREATE TRIGGER t AFTER UPDATE OF old ON a BEGIN UPDATE a SET other = 'was ' || old.old WHERE rowid = new.rowid; END;
INSERT INTO a(old) VALUES (5);
ALTER TABLE a RENAME COLUMN old TO "new;";
UPDATE a SET "new;" = 6;
