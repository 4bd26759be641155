CREATE TABLE conversations(id STRING PRIMARY KEY ASC, json TEXT, active_at INTEGER, type STRING, members TEXT, name TEXT, profileName TEXT, e164 TEXT, uuid TEXT);
CREATE TABLE messages(rowid INTEGER PRIMARY KEY ASC, id STRING UNIQUE, json TEXT, sent_at INTEGER, conversationId STRING, body TEXT,
  isErased INTEGER GENERATED ALWAYS AS (IFNULL(json_extract(json, '$.isErased'), 0)) VIRTUAL);
CREATE INDEX messages_conversation ON messages(conversationId, sent_at) WHERE conversationId IS NOT NULL;
CREATE VIRTUAL TABLE messages_fts USING fts5(body, tokenize = 'unicode61');
CREATE TRIGGER messages_on_insert AFTER INSERT ON messages WHEN new.isErased IS NOT 1
BEGIN
  INSERT INTO messages_fts (rowid, body) VALUES (new.rowid, new.body);
END;
INSERT INTO messages(id, json, conversationId, body) VALUES ('m1', '{"isErased":0}', 'c', 'hello; you'), ('m2', '{"isErased":1}', 'c', 'gone');
