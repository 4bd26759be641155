-- Größe, 大きさ, размер; 🐦
/* ½ */ CREATE TABLE a(x); -- ✓
INSERT INTO a VALUES ('✓'); /* 🐦; */
