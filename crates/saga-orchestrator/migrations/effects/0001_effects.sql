-- ANCHOR: effects
-- What this service did: charges and refunds, or bookings and cancellations. What is done twice is here twice: nothing
-- but the key of the call prevents it.
create table effects (
    id bigint generated always as identity primary key,
    order_id uuid not null,
    kind text not null check (kind in ('charge', 'refund', 'book', 'cancel')),
    request jsonb not null,
    at timestamptz not null default now()
);

create index effects_by_order on effects (order_id);

-- What an order asked for and what it was told, as in the inventory.
create table calls (
    order_id uuid primary key,
    request jsonb,
    action_key text,
    refusal text,
    undo_key text
);
-- ANCHOR_END: effects
