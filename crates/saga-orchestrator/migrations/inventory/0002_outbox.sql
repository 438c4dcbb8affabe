-- Only choreography uses these two: events that are still to be published, and those that were dealt with.
create table outbox (
    id bigint generated always as identity primary key,
    event jsonb not null
);

create table inbox (
    event_id uuid primary key,
    at timestamptz not null default now()
);
