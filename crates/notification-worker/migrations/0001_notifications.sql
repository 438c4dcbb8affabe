-- ANCHOR: schema
-- Both counters of a user. The row's lock gives them out one after another, so a number that can be seen
-- has no smaller one still on its way.
create table users (
    user_id text collate "C" primary key,
    -- Given to each notification when it is accepted.
    last_seq bigint not null default 0,
    -- Given to each when it enters the user's stream.
    last_position bigint not null default 0
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
    -- The worker whose attempt is in flight. If another worker claims the job, this one has died.
    claimed_by text collate "C",
    -- Failures and crashes since it was queued, or queued again.
    failures integer not null default 0,
    crashes integer not null default 0,
    -- Each message in the broker names the generation that it is for; those of an older one are void.
    generation integer not null default 0,
    last_error text,
    due_at timestamptz not null default now(),
    position bigint,
    -- Whether the broker has confirmed it, or a worker has seen it.
    confirmed boolean not null default false,
    -- If nobody has touched the job until then, its message is lost, and the sweep publishes it again.
    sweep_at timestamptz default now(),
    created_at timestamptz not null default now(),
    unique (user_id, seq)
);

-- The stream of a user: what sockets read, and read again.
create unique index notifications_stream on notifications (user_id, position) where position is not null;
create index notifications_sweep_at on notifications (sweep_at) where sweep_at is not null;
create index notifications_created_at on notifications (created_at);

-- Why attempts failed. Those that succeed leave no row.
create table failures (
    job_id text collate "C" not null references notifications on delete cascade,
    attempt integer not null,
    at timestamptz not null default now(),
    error text not null,
    primary key (job_id, attempt)
);

-- A token is one phone, and a phone has one user.
create table devices (
    token text collate "C" primary key,
    user_id text collate "C" not null,
    created_at timestamptz not null default now()
);
create index devices_user_id on devices (user_id);

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
