-- A web site with :events events. Chance comes from hashes of the row's number, so each run makes the same rows.
set local time zone 'UTC';

insert into users (id, email, name, city, country, plan, bio, created_at)
select
    n,
    'user' || n || '@example.org',
    'User ' || n,
    'City ' || city,
    'Country ' || city / 5,
    case when n % 50 = 0 then 'team' when n % 10 = 0 then 'pro' else 'free' end,
    (select string_agg(md5(n || '.' || part), '') from generate_series(1, case when n % 10 = 0 then 160 else 4 end) as part),
    timestamptz '2025-01-01' + n * interval '1 minute'
from generate_series(1, :events / 10) as n,
-- The square makes some cities large.
lateral (select floor(100 * (((hashint8(n) & 2147483647) % 10000) / 10000.0) ^ 2)::integer as city) as chance
;

insert into events (id, user_id, kind, url, amount, created_at)
select
    n,
    -- A user with a small number has most of them.
    floor((:events / 10) * (((hashint8(n) & 2147483647) % 100000) / 100000.0) ^ 3)::bigint + 1,
    case
        when n <= :events / 10 and n % 5 = 0 then 'import'
        when n % 100 = 0 then 'purchase'
        when n % 11 = 0 then 'click'
        else 'view'
    end,
    '/page/' || (hashint8(n + 1000000007) & 2147483647) % 1000 || '?ref=' || md5(n::text),
    case when n % 100 = 0 then n % 997 end,
    timestamptz '2026-01-01' + n * interval '10 seconds'
from generate_series(1, :events) as n;

insert into sessions (id, user_id, device, system, browser, started_at)
select
    n,
    case when n % 10 >= 3 then (hashint8(n + 7) & 2147483647) % (:events / 10) + 1 end,
    'Device ' || device,
    'System ' || device / 5,
    'Browser ' || device / 10,
    timestamptz '2026-01-01' + n * interval '50 seconds'
from generate_series(1, :events / 5) as n,
lateral (select floor(100 * (((hashint8(n + 13) & 2147483647) % 10000) / 10000.0) ^ 2)::integer as device) as chance;

analyze users, events, sessions;

-- The first batch is counted, and the large one that follows is not.
insert into loads (id, user_id, batch, amount)
select n, n % (:events / 10) + 1, 1, n % 100 from generate_series(1, 1000) as n;
analyze loads;
insert into loads (id, user_id, batch, amount)
select n, n % (:events / 10) + 1, 2, n % 100 from generate_series(1001, 1000 + :events / 4) as n;
