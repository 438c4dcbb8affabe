-- ANCHOR: schema
create table users (
    id uuid primary key,
    -- In lower case, so that this index decides who owns an address, however it is typed.
    email text collate "C" not null constraint users_email unique,
    -- Algorithm, parameters, salt and hash in one string: what it was made with is known for ever.
    password_hash text not null,
    created_at timestamptz not null default now()
);

-- One login and all that was refreshed from it. Its row is the lock under which a refresh is decided.
create table families (
    id uuid primary key,
    user_id uuid not null references users on delete cascade,
    -- How often it has been refreshed. Only tokens of this generation are fresh.
    generation integer not null default 0,
    -- When the present generation began, which is when the one before it was first used.
    advanced_at timestamptz not null default now(),
    revoked_at timestamptz,
    -- Moves on with each refresh.
    expires_at timestamptz not null
);

create index families_user_id on families (user_id);
create index families_expires_at on families (expires_at);

create table refresh_tokens (
    -- SHA-256. A dump of this table logs nobody in.
    hash bytea primary key,
    family_id uuid not null references families on delete cascade,
    generation integer not null,
    -- The access token that was given out with it, so that a deny-list can name it.
    access_jti uuid not null,
    access_expires_at timestamptz not null,
    expires_at timestamptz not null
);

create index refresh_tokens_family_id on refresh_tokens (family_id);
create index refresh_tokens_expires_at on refresh_tokens (expires_at);
-- ANCHOR_END: schema

-- ANCHOR: signing_keys
create table signing_keys (
    -- The key's thumbprint (RFC 7638): computed from the key, so it can never name another.
    kid text collate "C" primary key,
    -- PKCS#8, DER.
    private_key bytea not null,
    public_key bytea not null check (length(public_key) = 32),
    -- Published from the start, used from here, until a younger key is used.
    signs_from timestamptz not null
);
-- ANCHOR_END: signing_keys

-- Failed logins, by the hash of an account or a client: nobody's address is written down.
create table failed_logins (
    key bytea primary key,
    failures integer not null,
    failed_at timestamptz not null,
    blocked_until timestamptz
);

create index failed_logins_failed_at on failed_logins (failed_at);

-- Where an account has been logged in from. Such clients are counted apart from the rest of the world.
create table known_clients (
    account bytea not null,
    client bytea not null,
    seen_at timestamptz not null default now(),
    primary key (account, client)
);

create index known_clients_seen_at on known_clients (seen_at);
