CREATE TABLE doc(id INTEGER PRIMARY KEY, body TEXT);
CREATE TABLE log(n INTEGER PRIMARY KEY AUTOINCREMENT, what TEXT);
CREATE TRIGGER doc_log AFTER UPDATE OF body ON doc WHEN old.body IS NOT new.body BEGIN
  INSERT INTO log(what) VALUES ('old ' || old.body);
  INSERT INTO log(what) VALUES ('new ' || new.body);
  DELETE FROM log WHERE n < (SELECT max(n) - 3 FROM log);
END;
INSERT INTO doc VALUES (1, 'a');
UPDATE doc SET body = 'b';
UPDATE doc SET body = 'b';
UPDATE doc SET body = 'c';
UPDATE doc SET body = 'd';
