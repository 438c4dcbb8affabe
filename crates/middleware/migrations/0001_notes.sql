-- ANCHOR: schema
create table notes (
    id uuid primary key,
    -- Whoever the layer `auth` found behind the key.
    owner text not null,
    text text not null,
    created_at timestamptz not null default now()
);

create index notes_of_owner on notes (owner, id desc);
-- ANCHOR_END: schema
