-- one;
CREATE TABLE a(x); -- two;
-- three
INSERT INTO a VALUES (1);
