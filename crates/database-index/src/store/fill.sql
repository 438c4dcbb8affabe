-- The users with the numbers $1 to $2. In one statement a million rows take seconds. Cities and days are spread by a hash, so
-- they are in no order; `created_at` is in the order of the table.
insert into users (email, name, city, born, status, tags, created_at)
select
    'user' || n || '@example.org',
    'User ' || n,
    'City ' || (hashint8(n) & 2147483647) % 100,
    date '1950-01-01' + (hashint8(n + 1000000007) & 2147483647) % 20000,
    case when n % 100 = 0 then 'blocked' else 'active' end,
    array['tag ' || n % 1000],
    timestamptz '2026-01-01' + n * interval '1 second'
from generate_series($1::bigint, $2::bigint) as n
