-- The statements of this database that took most time in all, and not those with the slowest single run: a thousand runs of
-- two milliseconds are two seconds.
select jsonb_build_object(
    'sql', query, 'calls', calls, 'total_ms', total_exec_time, 'mean_ms', mean_exec_time, 'slowest_ms', max_exec_time,
    'rows', rows, 'pages', shared_blks_hit + shared_blks_read
)
from pg_stat_statements
where dbid = (select oid from pg_database where datname = current_database())
order by total_exec_time desc
limit 50
