CREATE TABLE note(id INTEGER PRIMARY KEY, body TEXT);
CREATE VIRTUAL TABLE note_idx USING fts5(body, content='note', content_rowid='id');
CREATE TRIGGER note_ai AFTER INSERT ON note BEGIN INSERT INTO note_idx(rowid, body) VALUES (new.id, new.body); END;
CREATE TRIGGER note_ad AFTER DELETE ON note BEGIN INSERT INTO note_idx(note_idx, rowid, body) VALUES ('delete', old.id, old.body); END;
CREATE TRIGGER note_au AFTER UPDATE ON note BEGIN
  INSERT INTO note_idx(note_idx, rowid, body) VALUES ('delete', old.id, old.body);
  INSERT INTO note_idx(rowid, body) VALUES (new.id, new.body);
END;
INSERT INTO note(body) VALUES ('one two'), ('three; four');
UPDATE note SET body = 'two three' WHERE id = 1;
DELETE FROM note WHERE id = 2;
INSERT INTO note_idx(note_idx) VALUES ('rebuild');
