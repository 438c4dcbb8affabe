-- Who holds the lock that session $1 waits for; no row if it works.
select blocker.pid, blocker.state, extract(epoch from clock_timestamp() - blocker.xact_start)::float8 as seconds
from pg_stat_activity as waiting
cross join lateral unnest(pg_blocking_pids(waiting.pid)) as holder
join pg_stat_activity as blocker on blocker.pid = holder
where waiting.pid = $1 and waiting.wait_event_type = 'Lock'
limit 1
