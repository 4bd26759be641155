CREATE TABLE a(x TEXT);
INSERT INTO a VALUES ('line one;
line two;

  line four -- still the string
/* and still */');
