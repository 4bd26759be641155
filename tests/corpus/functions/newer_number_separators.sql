-- needs 3.46.0: underscores in numbers
CREATE TABLE a(x); INSERT INTO a VALUES (1_000_000), (0xff_ff), (1_0.5_0);
