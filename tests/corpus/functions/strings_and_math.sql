CREATE TABLE r(x);
INSERT INTO r VALUES (replace('a;b', ';', ',')), (trim('  x  ')), (substr('hello', -3, 2)), (round(2.567, 2)), (abs(-3)), (nullif(1, 1)), (coalesce(NULL, ';')), (iif(1 > 2, 'a', 'b')), (instr('abc', 'c')), (unicode('é')), (typeof(1.0)), (min(3, 1, 2)), (likelihood(1, 0.5));
