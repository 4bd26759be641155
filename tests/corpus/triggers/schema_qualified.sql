CREATE TABLE main.a(x, y);
CREATE TRIGGER main.a_ai AFTER INSERT ON a BEGIN UPDATE a SET y = 'seen' WHERE rowid = new.rowid; END;
INSERT INTO main.a(x) VALUES (1);
