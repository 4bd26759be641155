CREATE TABLE stock(sku TEXT PRIMARY KEY, n INTEGER);
CREATE TABLE moves(sku TEXT, by INTEGER);
CREATE TRIGGER moves_ai
  AFTER INSERT
  ON moves
  FOR EACH ROW
BEGIN
  INSERT INTO stock(sku, n) VALUES (new.sku, new.by)
    ON CONFLICT (sku) DO UPDATE SET n = n + excluded.n;
END;
INSERT INTO moves VALUES ('a', 3), ('b', 2), ('a', -1);
