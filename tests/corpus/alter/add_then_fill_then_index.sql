CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT); INSERT INTO u(name) VALUES ('A B'), ('C d'), (NULL);
ALTER TABLE u ADD COLUMN slug TEXT;
UPDATE u SET slug = lower(replace(name, ' ', '-')) WHERE slug IS NULL;
CREATE UNIQUE INDEX u_slug ON u(slug);
