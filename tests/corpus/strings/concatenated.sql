CREATE TABLE a(x);
INSERT INTO a VALUES ('a' || 'b' || ';' || char(59) || x'3b'), ('a'||1||NULL), ('%s; %d'), (printf('%s;%05d', 'x', 42));
