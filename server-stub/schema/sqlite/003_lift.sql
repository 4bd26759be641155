-- Rows that lack a column which could not be computed for them. A released file never changes: the next change is 004_*.sql.
CREATE INDEX kept_change_not_lifted ON kept_change(space_id, table_id, key) WHERE kind = 'not_lifted';
