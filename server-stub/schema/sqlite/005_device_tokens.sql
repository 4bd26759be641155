-- Tokens of devices: since when they count, which one they took the place of, and whether they still count. A released file
-- never changes: the next change is 006_*.sql.
ALTER TABLE device ADD COLUMN token_since_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE device ADD COLUMN previous_hash TEXT;               -- counts too, up to previous_until_ms
ALTER TABLE device ADD COLUMN previous_until_ms INTEGER;
ALTER TABLE device ADD COLUMN revoked_at_ms INTEGER;
UPDATE device SET token_since_ms = enrolled_at_ms;
CREATE UNIQUE INDEX device_by_previous_token ON device(previous_hash) WHERE previous_hash IS NOT NULL;
