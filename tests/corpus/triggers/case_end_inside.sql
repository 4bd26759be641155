CREATE TABLE orders(id INTEGER PRIMARY KEY, total REAL, band TEXT);
CREATE TRIGGER orders_band AFTER INSERT ON orders
BEGIN
  UPDATE orders SET band = CASE
      WHEN new.total > 100 THEN 'large; really'
      WHEN new.total > 10 THEN 'middle'
      ELSE 'small'
    END
  WHERE id = new.id;
END;
INSERT INTO orders(total) VALUES (5), (50), (500);
