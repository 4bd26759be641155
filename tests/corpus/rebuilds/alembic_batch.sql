CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT); CREATE TABLE book(id INTEGER PRIMARY KEY, author_id INTEGER REFERENCES author(id) ON DELETE CASCADE, title TEXT);
INSERT INTO author VALUES (1, 'a'), (2, 'b'); INSERT INTO book VALUES (1, 1, 'x'), (2, 1, 'y'), (3, 2, 'z;');

CREATE TABLE _alembic_tmp_author (
	id INTEGER NOT NULL, 
	name VARCHAR(40) NOT NULL, 
	CONSTRAINT pk_author PRIMARY KEY (id), 
	CONSTRAINT uq_author_name UNIQUE (name)
);

INSERT INTO _alembic_tmp_author (id, name) SELECT author.id, author.name 
FROM author;

DROP TABLE author;

ALTER TABLE _alembic_tmp_author RENAME TO author;
