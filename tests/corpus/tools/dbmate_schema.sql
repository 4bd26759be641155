CREATE TABLE users (
  id integer,
  name varchar(255),
  PRIMARY KEY (id)
);
CREATE TABLE IF NOT EXISTS "schema_migrations" (version varchar(128) primary key);
-- Dbmate schema migrations
INSERT INTO "schema_migrations" (version) VALUES
  ('20151129054053'),
  ('20200227231541');
