-- ANCHOR: schema
create table users (
    id uuid primary key,
    -- As its owner writes it.
    email text not null,
    -- The same for all spellings of one mailbox, so that this index decides who owns it.
    mailbox text collate "C" not null constraint users_mailbox unique,
    -- Algorithm, parameters, salt and hash in one string, so old hashes stay readable.
    password_hash text not null,
    created_at timestamptz not null default now()
);

-- One login and all that was refreshed from it. A refresh is decided under the lock on its row.
create table sessions (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    -- How often it has been refreshed. Only refresh tokens of this generation are fresh.
    generation integer not null default 0,
    -- When this generation began: then the one before it was first used.
    advanced_at timestamptz not null default clock_timestamp(),
    revoked_at timestamptz,
    -- Each refresh moves it on, but never past `ends_at`.
    expires_at timestamptz not null,
    ends_at timestamptz not null
);

create index sessions_user_id on sessions (user_id);
create index sessions_expires_at on sessions (expires_at);

create table refresh_tokens (
    -- SHA-256. A dump of this table logs nobody in.
    hash bytea primary key,
    session_id uuid not null references sessions on delete cascade,
    generation integer not null
);

create index refresh_tokens_session_id on refresh_tokens (session_id);
-- ANCHOR_END: schema

-- ANCHOR: signing_keys
create table signing_keys (
    -- The key's thumbprint (RFC 7638): computed from the key, so it can never name another.
    kid text collate "C" primary key,
    -- PKCS#8, DER.
    private_key bytea not null,
    -- It is published at once, and signs from here until a younger key does.
    signs_from timestamptz not null
);
-- ANCHOR_END: signing_keys

-- Failed logins, by the hash of an account or a client: nobody's address is written down.
create table failed_logins (
    key bytea primary key,
    -- Each failure moves it on by some seconds, so it tells how many are not forgotten yet.
    forgotten_at timestamptz not null
);

create index failed_logins_forgotten_at on failed_logins (forgotten_at);
