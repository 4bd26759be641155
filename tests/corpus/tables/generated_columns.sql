CREATE TABLE box(w INTEGER, h INTEGER,
  area INTEGER GENERATED ALWAYS AS (w * h) STORED,
  label TEXT AS (w || 'x' || h || ';') VIRTUAL,
  big BOOLEAN AS (area > 10));
INSERT INTO box(w, h) VALUES (2, 3), (4, 5);
CREATE INDEX box_label ON box(label);
UPDATE box SET w = 10 WHERE h = 3;
