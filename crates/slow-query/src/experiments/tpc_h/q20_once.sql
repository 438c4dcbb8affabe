-- The sums of all parts and suppliers are taken at once. What was never shipped has no sum in either version.
with shipped as (
    select l_partkey, l_suppkey, 0.5 * sum(l_quantity) as half
    from lineitem
    where l_shipdate >= date '1994-01-01' and l_shipdate < date '1994-01-01' + interval '1' year
    group by l_partkey, l_suppkey
)
select s_name, s_address
from supplier, nation
where s_suppkey in (
        select ps_suppkey
        from partsupp, shipped
        where ps_partkey in (select p_partkey from part where p_name like 'forest%')
            and l_partkey = ps_partkey and l_suppkey = ps_suppkey and ps_availqty > half
    )
    and s_nationkey = n_nationkey and n_name = 'CANADA'
order by s_name
