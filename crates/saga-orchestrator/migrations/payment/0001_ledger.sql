-- Money that moved. What is charged twice is here twice: nothing but the key of the call prevents it.
create table ledger (
    id bigint generated always as identity primary key,
    order_id uuid not null,
    kind text not null check (kind in ('charge', 'refund')),
    amount_cents bigint not null check (amount_cents > 0),
    at timestamptz not null default now()
);

create index ledger_order on ledger (order_id);

-- As in the inventory.
create table calls (
    order_id uuid primary key,
    request jsonb,
    action_key text,
    refusal text,
    undo_key text
);
