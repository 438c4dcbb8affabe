select indisvalid, pg_get_indexdef(indexrelid, 0, true)
from pg_index
join pg_class on pg_class.oid = indexrelid
where indrelid = 'users'::regclass and relname = $1
