-- ANCHOR: schema
create table users (
    id bigint primary key,
    email text collate "C" not null,
    name text collate "C" not null,
    city text collate "C" not null,
    country text collate "C" not null,
    plan text collate "C" not null,
    -- Long, so PostgreSQL keeps it in another table (TOAST).
    bio text collate "C" not null,
    created_at timestamptz not null
);

create table events (
    id bigint primary key,
    -- A few users have most of the events: skew. No index, though it refers to `users`.
    user_id bigint not null references users,
    -- Nine of ten are views; imports are rare and old.
    kind text collate "C" not null,
    url text collate "C" not null,
    amount integer,
    -- In the order of the table.
    created_at timestamptz not null
);

create index events_created_at on events (created_at);

create table sessions (
    id bigint primary key,
    -- NULL for three of ten: nobody has signed in.
    user_id bigint references users,
    -- The device decides the system, and the system the browser: correlated columns.
    device text collate "C" not null,
    system text collate "C" not null,
    browser text collate "C" not null,
    started_at timestamptz not null
);

-- Rows arrive by a bulk load. Nobody counts them afterwards.
create table loads (
    id bigint primary key,
    user_id bigint not null,
    batch integer not null,
    amount integer not null
) with (autovacuum_enabled = off);

create index loads_batch on loads (batch);

-- Which remedies are in effect.
create table treatments (
    patient text collate "C" not null,
    remedy text collate "C" not null,
    applied_at timestamptz not null default now(),
    constraint treatments_once primary key (patient, remedy)
);
-- ANCHOR_END: schema
