-- made by an editor;
CREATE TABLE a(x);
