/* A long introduction;
   with a CREATE TABLE no(x);
   and 'a quote
*/
CREATE TABLE a(x);
