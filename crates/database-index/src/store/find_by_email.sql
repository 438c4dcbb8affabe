select jsonb_build_object(
    'id', id, 'email', email, 'name', name, 'city', city, 'born', born, 'status', status, 'referred_by', referred_by,
    'created_at', to_char(created_at at time zone 'utc', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')
)
from users
where email = $1
limit 10
