CREATE TABLE a(x);
INSERT INTO a VALUES ('?'), (':name'), ('@x'), ('$y'), ('?1 ; ?2'), ('12:30:00');
