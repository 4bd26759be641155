CREATE TABLE a(d TEXT, n REAL);
INSERT INTO a VALUES (date('2024-02-29', '+1 year'), julianday('2000-01-01 12:00:00')), (strftime('%Y;%m;%d', '2024-03-01 00:00:00'), unixepoch('1970-01-02'));
