-- ANCHOR: schema
create table customers (
    id uuid primary key,
    name text not null constraint customers_name unique
);

create table users (
    id uuid primary key,
    customer_id uuid not null references customers,
    -- One for all spellings of a mailbox.
    email text collate "C" not null constraint users_email unique,
    role text not null check (role in ('viewer', 'clerk', 'admin')),
    password_hash text not null
);

create table invoices (
    id uuid primary key,
    customer_id uuid not null references customers,
    title text not null,
    note text not null default '',
    amount_cents bigint not null check (amount_cents > 0),
    -- An earlier invoice of the same customer: the foreign key holds both columns.
    corrects uuid,
    paid boolean not null default false,
    -- What we earn by it. No customer may see it.
    margin_cents bigint not null default 0,
    created_at timestamptz not null default now(),
    words tsvector not null generated always as (to_tsvector('simple', title || ' ' || note)) stored,
    unique (customer_id, id),
    constraint invoices_corrects foreign key (customer_id, corrects)
        references invoices (customer_id, id) on delete set null (corrects)
);

create index invoices_by_created_at on invoices (customer_id, created_at, id);
create index invoices_by_amount on invoices (customer_id, amount_cents, id);

create table attachments (
    id uuid primary key,
    customer_id uuid not null,
    invoice_id uuid not null,
    name text not null,
    media_type text not null,
    content bytea not null,
    constraint attachments_invoice foreign key (customer_id, invoice_id)
        references invoices (customer_id, id) on delete cascade
);

create table webhooks (
    id uuid primary key,
    customer_id uuid not null references customers,
    url text not null
);
-- ANCHOR_END: schema

-- How often somebody tried to log in, in a quarter of an hour. A key is a hash, so that all are of one size.
create table attempts (
    window_start timestamptz not null,
    key bytea not null,
    count int not null,
    primary key (window_start, key)
);

-- ANCHOR: audit
create table audit (
    seq bigint primary key,
    at timestamptz not null,
    actor uuid not null,
    action text not null,
    object text not null,
    request_id uuid not null,
    -- Of this entry and of the hash before it.
    hash bytea not null
);

-- Whoever appends holds the lock of this row, so the entries have one order.
create table audit_head (
    id boolean primary key default true check (id),
    seq bigint not null,
    hash bytea not null
);
insert into audit_head (seq, hash) values (0, '\x');

create function audit_hash(
    before bytea, seq bigint, at timestamptz, actor uuid, action text, object text, request_id uuid
) returns bytea language sql stable as $$
    select sha256(before || convert_to(
        jsonb_build_array(seq, extract(epoch from at), actor, action, object, request_id)::text, 'UTF8'))
$$;

-- The only way to write into the log that the role for customers has: it appends, and nothing else.
create function audit_append(actor uuid, action text, object text, request_id uuid)
returns void language plpgsql security definer set search_path = public, pg_temp as $$
declare
    before record;
    now_ timestamptz := clock_timestamp();
    hash_ bytea;
begin
    select head.seq, head.hash into strict before from audit_head head for update;
    hash_ := audit_hash(before.hash, before.seq + 1, now_, actor, action, object, request_id);
    insert into audit (seq, at, actor, action, object, request_id, hash)
    values (before.seq + 1, now_, actor, action, object, request_id, hash_);
    update audit_head set seq = before.seq + 1, hash = hash_;
end $$;
-- ANCHOR_END: audit

-- ANCHOR: tenant
-- All work for a customer is done as the role `pg_database_owner`. PostgreSQL brings it, and in each database it means the
-- owner of that database: so the program may become it, and nothing is added to the server. It cannot log in, and may do
-- nothing but what is granted here, since the schema is no longer its own.
alter schema public owner to current_user;
revoke create on schema public from public;
grant usage on schema public to pg_database_owner;
revoke execute on function audit_append from public;
grant execute on function audit_append to pg_database_owner;
-- Column by column: `paid` and `margin_cents` cannot be written, and `margin_cents` cannot even be read.
grant select (id, customer_id, title, note, amount_cents, corrects, paid, created_at, words),
    insert (id, customer_id, title, note, amount_cents, corrects), update (title, note), delete
    on invoices to pg_database_owner;
grant select, insert, delete on attachments, webhooks to pg_database_owner;

-- The second lock: whatever a statement forgets, it sees the rows of one customer. Of nobody, if nobody was named.
alter table invoices enable row level security;
alter table attachments enable row level security;
alter table webhooks enable row level security;
create policy own_invoices on invoices
    using (customer_id = nullif(current_setting('app.customer', true), '')::uuid);
create policy own_attachments on attachments
    using (customer_id = nullif(current_setting('app.customer', true), '')::uuid);
create policy own_webhooks on webhooks
    using (customer_id = nullif(current_setting('app.customer', true), '')::uuid);
-- ANCHOR_END: tenant
