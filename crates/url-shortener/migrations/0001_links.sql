-- ANCHOR: schema
create table links (
    -- This index decides who owns a code; nothing else does. "C": codes are compared byte by byte, as no language
    -- orders them.
    code text collate "C" primary key,
    -- A code may get another link after this one has ended. The id tells the two apart.
    id uuid not null,
    url text not null,
    -- SHA-256 of the token that changes and deletes the link. A link that several clients share has none.
    edit_token bytea check (length(edit_token) = 32),
    created_at timestamptz not null default now(),
    expires_at timestamptz
);

-- For the sweep. Most links never expire, and are not in it.
create index links_expires_at on links (expires_at) where expires_at is not null;

-- Counters, not clicks: a row for each link, day and referring host. There is no foreign key with `on delete cascade`:
-- the row of a popular link could then not be deleted in the time that a statement has.
create table clicks (
    link uuid not null,
    day date not null,
    referrer text collate "C" not null,
    clicks bigint not null,
    primary key (link, day, referrer)
);

-- Links that are gone, and whose clicks are still there. The sweep deletes those in pieces.
create table deleted_links (id uuid primary key);
-- ANCHOR_END: schema

-- A trigger, so that nobody who deletes links can forget it.
create function note_deleted_links() returns trigger language plpgsql as $$
begin
    insert into deleted_links (id) select id from deleted;
    return null;
end
$$;

create trigger note_deleted_links
after delete on links
referencing old table as deleted
for each statement execute function note_deleted_links();

-- One row: which shard this is, and all shards of its ring in their order.
create table ring (
    only_one boolean primary key default true check (only_one),
    shard uuid not null default gen_random_uuid(),
    shards uuid[] not null default '{}',
    -- Links are on their way to where this ring wants them.
    moving boolean not null default false
);
