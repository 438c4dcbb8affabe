-- ANCHOR: catalogue
create schema catalogue;

create table catalogue.products (
    id bigint primary key,
    name text not null,
    cents bigint not null
);

-- Written in the same transaction as the change that it tells of.
create table catalogue.outbox (
    id bigint generated always as identity primary key,
    event jsonb not null
);
-- ANCHOR_END: catalogue
