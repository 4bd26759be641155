CREATE TABLE job(id INTEGER PRIMARY KEY, state TEXT, at INTEGER);
CREATE UNIQUE INDEX job_running ON job(state) WHERE state = 'running; now';
CREATE INDEX job_waiting ON job(at) WHERE state IN ('new', 'again') AND at IS NOT NULL;
INSERT INTO job(state, at) VALUES ('new', 1), ('new', 2), ('running; now', 3);
