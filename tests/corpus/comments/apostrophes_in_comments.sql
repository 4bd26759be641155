-- don't split here
CREATE TABLE a(x); -- it's fine
/* isn't it? "really [yes `no */
INSERT INTO a VALUES ('a');
