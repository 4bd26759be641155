CREATE TABLE a(x);
CREATE TRIGGER t AFTER INSERT ON a BEGIN
  -- end; of the world
  UPDATE a SET x = x + 1; /* END; */
  /* BEGIN; COMMIT; */ UPDATE a SET x = x * 2;
  -- last; words
END; -- trailing
INSERT INTO a VALUES (1);
INSERT INTO a VALUES (10);
