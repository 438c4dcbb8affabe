-- ANCHOR: schema
create table users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Decides who has an e-mail address; nothing else does.
create unique index users_email on users (lower(email));

-- Written in the transaction that changes the user, deleted when Redis has forgotten the user: what is
-- in here may still be cached as it was. Nearly always empty.
create table invalidations (
    id bigint generated always as identity primary key,
    user_id bigint not null
);
-- ANCHOR_END: schema
