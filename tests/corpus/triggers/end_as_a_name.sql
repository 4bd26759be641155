CREATE TABLE span("begin" INTEGER, "end" INTEGER, [case] TEXT);
CREATE TRIGGER span_check AFTER INSERT ON span BEGIN
  UPDATE span SET "end" = "begin" WHERE "end" < "begin";
  UPDATE span SET [case] = 'end';
END;
INSERT INTO span VALUES (5, 3, ''), (1, 2, 'x');
