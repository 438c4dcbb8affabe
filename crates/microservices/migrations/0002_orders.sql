-- ANCHOR: orders
create schema orders;

create table orders.orders (
    id uuid primary key,
    -- One order for each key, whoever sends it. With users, the key is unique together with the user.
    key text collate "C" not null constraint orders_key unique,
    customer bigint not null,
    product bigint not null,
    quantity bigint not null,
    cents bigint not null,
    payment uuid not null,
    created_at timestamptz not null default now()
);

create index orders_by_customer on orders.orders (customer, created_at desc, id);

create table orders.outbox (
    id bigint generated always as identity primary key,
    event jsonb not null
);

-- Copies of what other services own, kept through their events.
create table orders.product_names (
    product bigint primary key,
    name text not null,
    -- The number of the event in the catalogue's outbox: a late, older event changes nothing.
    version bigint not null
);

create table orders.receipts (
    payment uuid primary key
);
-- ANCHOR_END: orders
