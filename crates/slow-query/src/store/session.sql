-- Without workers and compilation, the pages are those of the plan alone. The plan's estimates are for UTC.
set local max_parallel_workers_per_gather = 0;
set local jit = off;
set local time zone 'UTC'
