CREATE TABLE person(id INTEGER PRIMARY KEY, first TEXT, last TEXT);
CREATE VIEW full_name AS SELECT id, first || ' ' || last AS name FROM person;
CREATE TRIGGER full_name_in INSTEAD OF INSERT ON full_name BEGIN
  INSERT INTO person(first, last) VALUES (substr(new.name, 1, instr(new.name, ' ') - 1), substr(new.name, instr(new.name, ' ') + 1));
END;
CREATE TRIGGER full_name_up INSTEAD OF UPDATE OF name ON full_name BEGIN
  UPDATE person SET first = new.name WHERE id = old.id;
END;
CREATE TRIGGER full_name_out INSTEAD OF DELETE ON full_name BEGIN DELETE FROM person WHERE id = old.id; END;
INSERT INTO full_name(name) VALUES ('Ada Lovelace'), ('Grace Hopper');
UPDATE full_name SET name = 'Augusta' WHERE id = 1;
DELETE FROM full_name WHERE id = 2;
