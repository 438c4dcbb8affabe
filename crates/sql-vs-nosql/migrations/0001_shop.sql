-- ANCHOR: tables
-- Tables: a row for each customer, product, order and line. What nobody planned is in the column `more`.
create table customers (
    id text collate "C" primary key,
    name text not null,
    country text not null check (country ~ '^[A-Z]{2}$'),
    phones text[] not null,
    more jsonb not null default '{}',
    balance_cents bigint not null default 0
        constraint balance check (balance_cents between 0 and 9007199254740991)
);

create table products (
    id text collate "C" primary key,
    name text not null,
    price_cents bigint not null check (price_cents > 0),
    more jsonb not null default '{}',
    stock bigint not null default 0
        constraint stock check (stock between 0 and 9007199254740991)
);

create table orders (
    id text collate "C" primary key,
    customer text collate "C" not null references customers,
    ordered_at timestamptz not null,
    total_cents bigint not null check (total_cents > 0)
);

-- Name and price are copied from the product: an order says what was bought then, whatever the product becomes.
create table order_lines (
    order_id text collate "C" not null references orders,
    product text collate "C" not null references products,
    name text not null,
    quantity bigint not null check (quantity > 0),
    price_cents bigint not null,
    primary key (order_id, product)
);

create index products_price on products (price_cents, id);
create index products_more on products using gin (more jsonb_path_ops);
create index orders_of_customer on orders (customer, id);
create index lines_of_product on order_lines (product);
-- ANCHOR_END: tables

-- The rows as their readers want them.
create view customer_rows as
select id, more || jsonb_build_object(
    'name', name, 'country', country, 'phones', phones, 'balance_cents', balance_cents) as body
from customers;

create view product_rows as
select id, more, price_cents, more || jsonb_build_object(
    'name', name, 'price_cents', price_cents, 'stock', stock) as body
from products;

-- ANCHOR: documents
-- Documents: the lines of an order are in the order. `shape` says what a document has to look like; without it, only a
-- reader finds out.
create table customer_documents (
    id text collate "C" primary key,
    body jsonb not null constraint shape check (coalesce(
        jsonb_typeof(body -> 'name') = 'string'
        and body ->> 'country' ~ '^[A-Z]{2}$'
        and jsonb_typeof(coalesce(body -> 'phones', '[]')) = 'array'
        and not body @? '$.phones[*] ? (@.type() <> "string")', false)),
    constraint balance check (coalesce(
        (body ->> 'balance_cents')::bigint between 0 and 9007199254740991, false))
);

create table product_documents (
    id text collate "C" primary key,
    body jsonb not null constraint shape check (coalesce(
        jsonb_typeof(body -> 'name') = 'string' and (body ->> 'price_cents')::bigint > 0, false)),
    constraint stock check (coalesce(
        (body ->> 'stock')::bigint between 0 and 9007199254740991, false))
);

create table order_documents (
    id text collate "C" primary key,
    body jsonb not null
);

create index product_documents_body on product_documents using gin (body jsonb_path_ops);
create index order_documents_customer on order_documents ((body ->> 'customer'), id);
create index order_documents_lines on order_documents using gin ((body -> 'lines') jsonb_path_ops);
-- ANCHOR_END: documents

-- Both keep sessions in the same table.
create table sessions (
    id text primary key,
    customer text not null,
    expires_at timestamptz not null
);

create index sessions_expiry on sessions (expires_at);
