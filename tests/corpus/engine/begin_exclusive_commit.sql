begin exclusive;
create table a(x);
commit transaction;
