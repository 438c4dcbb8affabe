-- The average of each part is taken while its line items are there, and not once more for each of them.
select sum(l_extendedprice) / 7.0 as avg_yearly
from (
    select l_extendedprice, l_quantity, 0.2 * avg(l_quantity) over (partition by l_partkey) as few
    from lineitem, part
    where p_partkey = l_partkey and p_brand = 'Brand#23' and p_container = 'MED BOX'
) as ordered
where l_quantity < few
