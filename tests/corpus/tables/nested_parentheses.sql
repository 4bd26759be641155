CREATE TABLE p(a INTEGER CHECK ((((a) > (0)) AND ((a) < ((10)))) OR (a IN (((100)), (200)))), b DEFAULT (((((7))))));
INSERT INTO p(a) VALUES (((1))), ((((100))));
