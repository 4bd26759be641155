CREATE TABLE a(x REFERENCES b(y)); CREATE TABLE b(y PRIMARY KEY); CREATE INDEX a_x ON a(x);
PRAGMA table_info(a); PRAGMA table_xinfo("a"); PRAGMA index_list('a'); PRAGMA index_info(a_x); PRAGMA index_xinfo = a_x;
PRAGMA foreign_key_list(a); PRAGMA foreign_key_check; PRAGMA integrity_check; PRAGMA quick_check(5); PRAGMA database_list; PRAGMA collation_list; PRAGMA encoding; PRAGMA foreign_keys;
CREATE TABLE cols AS SELECT name, pk FROM pragma_table_info('b');
