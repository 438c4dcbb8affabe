-- Only choreography uses these two. Events that are still to be published:
create table outbox (
    id bigint generated always as identity primary key,
    event jsonb not null,
    -- When a relay may take it: at once, or when the relay that took it has had its time.
    due_at timestamptz not null default now()
);

-- And events that were dealt with, kept for as long as they could be delivered again.
create table inbox (
    event_id uuid primary key,
    at timestamptz not null default now()
);

create index inbox_by_age on inbox (at);
