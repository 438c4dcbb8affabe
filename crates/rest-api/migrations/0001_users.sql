-- ANCHOR: schema
-- One sequence for all versions of all users. If each user counted from 1, one that is deleted and created again under
-- the same id would have an old ETag again, and an If-Match from before would overwrite the new user.
create sequence versions;

create table users (
    id uuid primary key,
    name text collate "C" not null,
    email text not null,
    -- One for all spellings of a mailbox.
    email_key text collate "C" not null constraint users_email unique,
    tags text[] not null default '{}',
    version bigint not null default nextval('versions'),
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- A page continues after a name and an id, without reading the pages before it.
create index users_by_name on users (name, id);
create index users_by_created_at on users (created_at, id);

create table orders (
    id uuid primary key,
    user_id uuid not null constraint orders_user references users on delete cascade,
    item text not null,
    quantity int not null check (quantity > 0),
    state text not null default 'open' check (state in ('open', 'shipped', 'cancelled')),
    version bigint not null default nextval('versions'),
    created_at timestamptz not null default now()
);

create index orders_of_user on orders (user_id, id);

-- A client that sends a POST again, because the answer was lost, gets the same answer.
create table idempotency_keys (
    key text collate "C" primary key,
    -- Of the body, so that the same key with another body is found out.
    fingerprint bytea not null,
    -- The user as it was created; null if the email was taken. A refusal is an answer too.
    answer jsonb not null,
    created_at timestamptz not null default now()
);
-- ANCHOR_END: schema
