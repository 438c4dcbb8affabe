-- Parcels. What is booked twice is here twice: nothing but the key of the call prevents it.
create table shipments (
    id bigint generated always as identity primary key,
    order_id uuid not null,
    address jsonb not null,
    booked_at timestamptz not null default now(),
    cancelled_at timestamptz
);

create index shipments_order on shipments (order_id);

-- As in the inventory.
create table calls (
    order_id uuid primary key,
    request jsonb,
    action_key text,
    refusal text,
    undo_key text
);
