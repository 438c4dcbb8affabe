-- One that is dropped while this runs is still in the rows, but has no definition any more.
with indexes as materialized (
    select
        class.relname as name,
        coalesce(definition_of_index(class.oid, 0), '') as definition,
        pg_am.amname as kind,
        array(
            select coalesce(definition_of_index(class.oid, n), '')
            from generate_series(1, pg_index.indnkeyatts) as n
        ) as keys,
        array(
            select coalesce(definition_of_index(class.oid, n), '')
            from generate_series(pg_index.indnkeyatts + 1, pg_index.indnatts) as n
        ) as include,
        pg_get_expr(indpred, indrelid, true) as condition,
        indisunique as unique,
        exists (select from pg_constraint where conindid = class.oid and contype in ('p', 'u')) as of_constraint,
        -- PostgreSQL finds those that refer to a deleted row by an index that begins with the column, and has all rows.
        indisunique or indpred is null and exists (
            select from pg_constraint where contype = 'f' and conrelid = indrelid and conkey[1] = indkey[0]
        ) as needed,
        progress,
        case when progress is not null then 'building' when indisvalid then 'ready' else 'invalid' end as state,
        coalesce(pg_relation_size(class.oid), 0) as bytes,
        coalesce(idx_scan, 0) as scans,
        -- The column came with PostgreSQL 16.
        (to_jsonb(stats) ->> 'last_idx_scan')::timestamptz as last_use,
        -- A B-tree's entry has a head of 8 bytes and a pointer of 4, and begins at a multiple of 8. Pages are filled to 90 %.
        case when amname = 'btree' then (
            select greatest(0, 1 - class.reltuples * (12 + 8 * ceil(sum(avg_width) / 8.0)) / 0.9
                / nullif(pg_relation_size(class.oid), 0))::float8
            from pg_attribute
            left join pg_stats on pg_stats.schemaname = stats.schemaname
                and pg_stats.tablename = stats.relname and pg_stats.attname = pg_attribute.attname
            where attrelid = class.oid
            having count(*) = count(avg_width) and class.reltuples >= 0
        ) end as bloat
    from pg_index
    join pg_class as class on class.oid = indexrelid
    join pg_am on pg_am.oid = class.relam
    left join pg_stat_user_indexes as stats on stats.indexrelid = class.oid
    left join lateral (
        select jsonb_build_object('phase', phase, 'blocks_done', blocks_done, 'blocks_total', blocks_total) as progress
        from pg_stat_progress_create_index
        where index_relid = class.oid and datname = current_database()
    ) as build on true
    where indrelid = 'users'::regclass
)
select
    name, definition, kind, keys, include, condition, "unique", of_constraint, needed, progress, state, bytes, scans, last_use,
    bloat
from indexes
where definition <> ''
order by cardinality(keys), name
