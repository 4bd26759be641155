PRAGMA user_version = 12;
PRAGMA application_id = 0x1234;
CREATE TABLE a(x);
PRAGMA user_version;
