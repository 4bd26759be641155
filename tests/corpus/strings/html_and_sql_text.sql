CREATE TABLE template(name TEXT, body TEXT);
INSERT INTO template VALUES
  ('mail', '<p style="color: red;">Hello, {{ name }}; it''s you!</p><!-- comment -->'),
  ('sql', 'CREATE TRIGGER t AFTER INSERT ON a BEGIN SELECT 1; END;'),
  ('js', 'for (let i = 0; i < 3; i++) { f("a", ''b'', `c`); } // done');
