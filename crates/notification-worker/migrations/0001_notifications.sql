-- ANCHOR: schema
-- Both counters of a user. The row's lock gives them out one after another, so a number that can be seen
-- has no smaller one still on its way.
create table users (
    user_id text collate "C" primary key,
    -- Given to each notification when it is accepted.
    last_seq bigint not null default 0,
    -- Given to each when it enters the user's stream.
    last_position bigint not null default 0,
    quiet_minute timestamptz,
    quiet_count integer not null default 0
);

create table notifications (
    -- The idempotency record: this index decides that a job exists once; nothing else does.
    job_id text collate "C" primary key,
    -- Made by the same statement: a foreign key would only look for it again.
    user_id text collate "C" not null,
    seq bigint not null,
    channel text not null check (channel in ('websocket', 'push')),
    priority text not null check (priority in ('high', 'normal')),
    title text not null,
    body text not null,
    status text not null default 'queued' check (status in ('queued', 'retrying', 'delivered', 'dead')),
    -- Attempts that have begun. The newest is the only one whose outcome counts: a fencing token.
    attempts integer not null default 0,
    in_flight boolean not null default false,
    -- Failures and crashes since it was queued, or queued again.
    failures integer not null default 0,
    crashes integer not null default 0,
    -- Each message in the broker names the generation that it is for; those of an older one are void.
    generation integer not null default 0,
    last_error text,
    due_at timestamptz not null default now(),
    position bigint,
    -- How many others it stands for, if it is a summary.
    collapsed integer,
    -- Whether the broker is known to hold it.
    confirmed boolean not null default false,
    created_at timestamptz not null default now(),
    unique (user_id, seq)
);

-- The stream of a user: what sockets read, and read again.
create unique index notifications_stream on notifications (user_id, position) where position is not null;
-- For the sweep: what a crash left between the database and the broker. Nearly always empty.
create index notifications_unconfirmed on notifications (created_at) where not confirmed;
create index notifications_created_at on notifications (created_at);

-- Why attempts failed. Those that succeed leave no row.
create table failures (
    job_id text collate "C" not null references notifications on delete cascade,
    attempt integer not null,
    at timestamptz not null default now(),
    error text not null,
    primary key (job_id, attempt)
);

create table devices (
    user_id text collate "C" not null,
    token text collate "C" not null,
    created_at timestamptz not null default now(),
    primary key (user_id, token)
);

-- Devices that have a job already: a retry leaves them alone.
create table pushes (
    job_id text collate "C" not null references notifications on delete cascade,
    token text collate "C" not null,
    primary key (job_id, token)
);

-- The workers that live, and the shards that each may take.
create table workers (
    name text collate "C" primary key,
    first_shard integer not null,
    last_shard integer not null,
    seen_at timestamptz not null default now()
);
-- ANCHOR_END: schema
