--
-- Copyright: nobody; all rights reversed
--
--
CREATE TABLE a(x);
