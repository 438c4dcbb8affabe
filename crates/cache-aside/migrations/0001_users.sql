-- ANCHOR: schema
create table users (
    id bigint generated always as identity primary key,
    name text not null,
    email text not null,
    -- The same for all spellings of an address. The program folds it, because `lower` depends on the locale. The index
    -- decides who has an address; nothing else does.
    email_key text not null constraint users_email unique,
    version bigint not null default 1,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- What is in here may still be cached as it was. A row is deleted when Redis has forgotten the user, so the table is
-- nearly always empty.
create table invalidations (
    id bigint generated always as identity primary key,
    user_id bigint not null,
    version bigint not null
);

-- Written in the transaction that changes the user, whoever changes it.
create function invalidate() returns trigger language plpgsql as $$
begin
    insert into invalidations (user_id, version)
    values (coalesce(new.id, old.id), coalesce(new.version, old.version));
    return null;
end
$$;
create trigger invalidate after insert or update or delete on users
for each row execute function invalidate();

-- A part of every key in Redis, so that the cache does not outlive this database. After a backup was restored, empty the
-- cache with `update origin set id = default`.
create table origin (id uuid not null default gen_random_uuid());
insert into origin default values;
-- ANCHOR_END: schema
