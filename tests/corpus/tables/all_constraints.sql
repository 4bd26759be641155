CREATE TABLE account(
  id INTEGER PRIMARY KEY AUTOINCREMENT NOT NULL,
  email TEXT NOT NULL UNIQUE ON CONFLICT IGNORE COLLATE NOCASE,
  age INTEGER CHECK (age >= 0 AND age < 200) DEFAULT (20 + 1),
  state TEXT NOT NULL DEFAULT 'new' CONSTRAINT known_state CHECK (state IN ('new', 'old; gone')),
  CONSTRAINT both UNIQUE (id, state)
);
INSERT INTO account(email) VALUES ('a'), ('A'), ('b');
