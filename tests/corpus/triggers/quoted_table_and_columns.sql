CREATE TABLE "my table"([the key] INTEGER PRIMARY KEY, `a value` TEXT);
CREATE TRIGGER "my trigger" AFTER INSERT ON "my table" BEGIN
  UPDATE "my table" SET `a value` = upper(new.`a value`) WHERE [the key] = new.[the key];
END;
INSERT INTO "my table"(`a value`) VALUES ('x;y');
