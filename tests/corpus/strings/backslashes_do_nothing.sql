CREATE TABLE a(x TEXT);
INSERT INTO a VALUES ('C:\path\'), ('\'), ('\n;\t'), ('a\''b');
