CREATE TABLE u(email TEXT, data TEXT);
INSERT INTO u VALUES ('A@x', '{"k": 1}'), ('b@x', '{"k": 2}');
CREATE UNIQUE INDEX u_email ON u(lower(email));
CREATE INDEX u_k ON u(json_extract(data, '$.k'), length(email) + 1 DESC);
