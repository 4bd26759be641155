CREATE VIRTUAL TABLE f USING fts5(title, body UNINDEXED, tokenize = "unicode61 remove_diacritics 2 tokenchars '-_'", prefix='2 3');
INSERT INTO f(title, body) VALUES ('naïve café-bar', 'x');
INSERT INTO f(f) VALUES ('optimize');
