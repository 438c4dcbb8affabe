-- ANCHOR: schema
create table links (
    -- This index decides who owns a code; nothing else does. "C": codes are bytes, and no language's
    -- idea of order or of equality has any business here.
    code text collate "C" primary key,
    url text not null,
    -- Given to everyone who asks for this URL: no alias, no expiry.
    shared boolean not null,
    created_at timestamptz not null default now(),
    expires_at timestamptz
);

-- For the sweep. Most links never expire, and are not in it.
create index links_expires_at on links (expires_at) where expires_at is not null;

-- Counters, not clicks: a row for each link, day and referring host.
create table clicks (
    code text collate "C" not null references links on delete cascade,
    day date not null,
    referrer text collate "C" not null,
    clicks bigint not null,
    primary key (code, day, referrer)
);
-- ANCHOR_END: schema

-- For `--codes sequence`: the next number, and the key of the permutation that hides it.
create sequence code_numbers minvalue 0 maxvalue 3521614606207;

create table permutation_key (
    only_one boolean primary key default true check (only_one),
    key bytea not null check (length(key) = 16)
);
