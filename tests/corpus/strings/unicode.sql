CREATE TABLE a(x TEXT);
INSERT INTO a VALUES ('naïve café'), ('日本語；全角'), ('🐦;🐦'), ('a' || char(8232) || 'b'), ('ﬁ'), (upper('straße'));
