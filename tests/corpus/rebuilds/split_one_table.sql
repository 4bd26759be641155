CREATE TABLE customer(id INTEGER PRIMARY KEY, name TEXT, street TEXT, city TEXT);
INSERT INTO customer(name, street, city) VALUES ('n', 's', 'c'), ('m', 's', 'c'), ('o', 't;', 'c');
CREATE TABLE address(id INTEGER PRIMARY KEY, street TEXT, city TEXT, UNIQUE (street, city));
INSERT INTO address(street, city) SELECT DISTINCT street, city FROM customer ORDER BY street;
CREATE TABLE customer_new(id INTEGER PRIMARY KEY, name TEXT, address_id INTEGER REFERENCES address(id));
INSERT INTO customer_new SELECT c.id, c.name, a.id FROM customer c JOIN address a USING (street, city);
DROP TABLE customer; ALTER TABLE customer_new RENAME TO customer;
