CREATE TABLE a(
  id INTEGER PRIMARY KEY, -- key; yes
  gone TEXT, /* soon, (really) */
  stays TEXT -- for ever
);
INSERT INTO a VALUES (1, 'g', 's');
ALTER TABLE a DROP COLUMN gone;
