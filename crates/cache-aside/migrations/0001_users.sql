-- ANCHOR: schema
create table users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null,
    -- Of the e-mail address: the same for all ways to write it. The program folds it, because `lower` depends on the
    -- locale. The index decides who has an address; nothing else does.
    email_key text not null constraint users_email unique,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- Written in the transaction that changes the user, deleted when Redis has forgotten the user: what is
-- in here may still be cached as it was. Nearly always empty.
create table invalidations (
    id bigint generated always as identity primary key,
    user_id bigint not null
);

-- A part of every key in Redis, so that the cache does not outlive this database. One row, which the first process
-- makes. Deleting it empties the cache, for example after a backup was restored.
create table origin (
    id text not null default replace(gen_random_uuid()::text, '-', ''),
    only_one boolean primary key default true check (only_one)
);
-- ANCHOR_END: schema
