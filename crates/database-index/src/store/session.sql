-- Without workers and compilation, the pages and times are those of the plan alone.
set local max_parallel_workers_per_gather = 0;
set local jit = off;
-- The counters are written at the end of the transaction, so that `GET /indexes` sees this scan.
select pg_stat_force_next_flush();
