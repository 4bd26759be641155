CREATE TABLE author(id INTEGER PRIMARY KEY, books INTEGER); CREATE TABLE book(id INTEGER PRIMARY KEY, author INTEGER);
INSERT INTO author VALUES (1, NULL), (2, NULL), (3, NULL);
INSERT INTO book(author) VALUES (1), (1), (2);
UPDATE author SET books = (SELECT count(*) FROM book WHERE book.author = author.id);
