-- ANCHOR: schema
-- No index but the primary key's: the reader makes them. `collate "C"` compares bytes. In another collation a B-tree
-- serves `like 'ada%'` only with `text_pattern_ops`.
create table users (
    id bigint generated always as identity primary key,
    email text collate "C" not null,
    name text collate "C" not null,
    city text collate "C" not null,
    born date not null,
    status text collate "C" not null default 'active' check (status in ('active', 'blocked')),
    tags text[] collate "C" not null default '{}',
    notes text collate "C",
    -- PostgreSQL makes an index for the primary key, and none for this side of a foreign key.
    referred_by bigint constraint users_referred_by references users,
    created_at timestamptz not null default now()
);
-- ANCHOR_END: schema
