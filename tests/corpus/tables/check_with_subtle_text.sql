CREATE TABLE c(a TEXT CHECK (a NOT LIKE '%;%' AND a <> ')' AND length(a) < 10), b TEXT CHECK (b GLOB '[a-z]*' OR b IS NULL));
INSERT INTO c VALUES ('(', 'abc'), ('x', NULL);
