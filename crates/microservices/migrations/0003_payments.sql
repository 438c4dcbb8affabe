create schema payments;

create table payments.payments (
    id uuid primary key,
    -- The key of the order. A payment that is asked for again is the same payment.
    key text collate "C" not null constraint payments_key unique,
    customer bigint not null,
    cents bigint not null,
    created_at timestamptz not null default now()
);

create table payments.outbox (
    id bigint generated always as identity primary key,
    event jsonb not null
);
