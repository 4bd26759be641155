CREATE TABLE abort(key, value, action, temp, view, trigger, row, rows, first, last, do, current, end, begin);
INSERT INTO abort(key, value, end) VALUES (1, 2, 3);
