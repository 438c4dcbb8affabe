-- ANCHOR: inventory
create table stock (
    sku text collate "C" primary key,
    -- What can be promised to the next order. The check refuses to sell what is not there, whoever asks.
    available bigint not null constraint stock_is_enough check (available >= 0),
    -- The semantic lock: promised to an order that is still on its way.
    reserved bigint not null default 0 check (reserved >= 0),
    sold bigint not null default 0
);

-- What an order asked for and what it was told. The order is the key, so that whatever is asked twice, late
-- or in the wrong order meets the row of the first time.
create table calls (
    order_id uuid primary key,
    request jsonb,
    -- The idempotency key of the action. Null: it was undone before it came, and must never be done.
    action_key text,
    -- Why the action was refused. Null: it was done.
    refusal text,
    -- The idempotency key of the compensation, once it was asked for.
    undo_key text,
    -- Only here: the idempotency key of the step after the pivot.
    sell_key text
);
-- ANCHOR_END: inventory
