-- The statement of an index (0), or its nth key or column; null if the index is dropped meanwhile. PostgreSQL's own function then
-- breaks off: it looks at the catalogue as it is now, and the query at its snapshot.
create function definition_of_index(index oid, n int) returns text language plpgsql stable as $$
begin
    return pg_get_indexdef(index, n, true);
exception when internal_error then
    return null;
end
$$;
