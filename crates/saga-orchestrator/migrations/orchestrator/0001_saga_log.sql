-- ANCHOR: schema
create table orders (
    -- Version 7: rises with time, so pages follow the primary key.
    id uuid primary key,
    -- This index decides which of two equal requests makes the order.
    idempotency_key text collate "C" not null unique,
    request jsonb not null,
    -- Follows from the log, and is kept here for the index below.
    status text not null default 'pending'
        check (status in ('pending', 'confirmed', 'cancelling', 'cancelled', 'stuck')),
    -- How many records the log has.
    records integer not null,
    -- The fencing token. Each claim takes the next one, and a write that bears an older one writes nothing.
    fence bigint not null default 0,
    -- Whether somebody holds it. If so when it falls due, that somebody has died or sleeps.
    leased boolean not null default false,
    -- When it may be claimed: now, after a pause, or when the lease ends. Null: there is nothing to do.
    due_at timestamptz default now()
);

create index orders_due on orders (due_at) where due_at is not null;
create index orders_by_status on orders (status, id);

-- Every decision, written before its effect is asked for; only ever added to.
create table saga_log (
    order_id uuid not null references orders,
    number integer not null,
    record jsonb not null,
    -- The fencing token of who wrote it.
    fence bigint not null,
    at timestamptz not null default now(),
    primary key (order_id, number)
);
-- ANCHOR_END: schema
