--liquibase formatted sql

--changeset anna:1 labels:shop
--comment: the first; table
create table person (
    id int primary key,
    name varchar(50) not null
);
--rollback drop table person;

--changeset anna:2
insert into person values (1, 'Anna');
