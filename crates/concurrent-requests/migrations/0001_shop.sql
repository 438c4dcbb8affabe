-- ANCHOR: schema
create table products (
    id bigint primary key,
    name text not null,
    cents bigint not null,
    -- The statement that takes stock sees to it that this never falls below zero.
    stock int not null
);

create table orders (
    id uuid primary key,
    -- One order for each key, whoever sends it. With users, the key is unique together with the user.
    key text collate "C" not null constraint orders_key unique,
    product bigint not null,
    quantity int not null,
    created_at timestamptz not null default now()
);

-- A report reads the orders of one day.
create index orders_by_created_at on orders (created_at);
-- ANCHOR_END: schema
