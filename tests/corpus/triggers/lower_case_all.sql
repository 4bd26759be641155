create table a(x integer, y integer);
create trigger a_ai after insert on a begin update a set y = case when x > 0 then 1 else -1 end; end;
insert into a(x) values (3), (-3);
