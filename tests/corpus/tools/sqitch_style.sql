-- Deploy shop:items to sqlite
-- requires: appschema

BEGIN;

CREATE TABLE items (
    sku   TEXT    PRIMARY KEY,
    cents INTEGER NOT NULL CHECK(cents > 0)
);

COMMIT;
