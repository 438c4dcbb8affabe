select relname
from pg_index
join pg_class on pg_class.oid = indexrelid
where indrelid = 'users'::regclass and relname = $1 and not indisvalid
