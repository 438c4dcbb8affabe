-- ANCHOR: schema
create table notifications (
    -- The idempotency record: this index decides that a job exists once; nothing else does.
    job_id text collate "C" primary key,
    -- Rises in the order in which jobs were accepted.
    number bigint generated always as identity,
    user_id text collate "C" not null,
    channel text not null check (channel in ('websocket', 'push')),
    title text not null,
    body text not null,
    status text not null default 'queued' check (status in ('queued', 'delivered', 'dead')),
    -- Attempts that have begun. The newest is the only one whose outcome counts: a fencing token.
    attempts integer not null default 0,
    -- The worker whose attempt is in flight. If another worker claims the job, this one has died.
    claimed_by text collate "C",
    -- Failures and crashes since it was queued, or queued again.
    failures integer not null default 0,
    crashes integer not null default 0,
    last_error text,
    due_at timestamptz not null default now(),
    -- Its place in its user's stream.
    position bigint,
    -- A second call with this job_id was told that it is accepted, so the first one cannot take it back.
    promised boolean not null default false,
    -- The sweep publishes the job then: its next attempt is due, or nobody has heard of it for too long.
    sweep_at timestamptz default now(),
    created_at timestamptz not null default now()
);

-- The stream of a user: what sockets read, and read again.
create unique index notifications_stream on notifications (user_id, position) where position is not null;
create index notifications_sweep_at on notifications (sweep_at) where sweep_at is not null;
create index notifications_created_at on notifications (created_at);

-- The newest place in each user's stream. The row's lock gives places out one after another, so a place that can be
-- seen has no smaller one still on its way.
create table streams (
    user_id text collate "C" primary key,
    last_position bigint not null
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

-- The workers that live.
create table workers (
    name text collate "C" primary key,
    seen_at timestamptz not null default now()
);
-- ANCHOR_END: schema
