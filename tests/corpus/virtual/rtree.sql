CREATE VIRTUAL TABLE place USING rtree(id, min_x, max_x, min_y, max_y);
INSERT INTO place VALUES (1, 0, 1, 0, 1), (2, 5, 6, 5, 6);
DELETE FROM place WHERE max_x < 2;
