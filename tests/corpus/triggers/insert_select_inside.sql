CREATE TABLE price(item TEXT, cents INTEGER);
CREATE TABLE price_history(item TEXT, cents INTEGER, nth INTEGER);
CREATE TRIGGER price_kept AFTER UPDATE ON price BEGIN
  INSERT INTO price_history SELECT old.item, old.cents, 1 + count(*) FROM price_history WHERE item = old.item;
END;
INSERT INTO price VALUES ('tea', 200), ('bun', 90);
UPDATE price SET cents = cents + 10;
UPDATE price SET cents = cents + 10 WHERE item = 'bun';
