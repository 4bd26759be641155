-- goose up
-- +goose StatementBegin
CREATE TABLE a(x, y);
CREATE TRIGGER a_t AFTER INSERT ON a BEGIN UPDATE a SET y = 1; UPDATE a SET y = y + 1; END;
-- +goose StatementEnd
INSERT INTO a(x) VALUES (1);
