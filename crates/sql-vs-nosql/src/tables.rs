//! The shop in tables: each fact is in one place, and the database keeps the rules.

use crate::postgres::Statements;

/// Its statements.
pub const SQL: Statements = Statements {
    // The columns have types: what is wrong does not get in.
    any_shape: false,
    find: [
        "select body from customer_rows where id = $1",
        "select body from product_rows where id = $1",
    ],
    // A field that is known goes into its column, and all others into `more`.
    put: [
        r#"
        insert into customers (id, name, country, phones, more)
        select $1, $2 ->> 'name', $2 ->> 'country',
            array(select jsonb_array_elements_text($2 -> 'phones')),
            $2 - array['name', 'country', 'phones']
        on conflict (id) do update
        set name = excluded.name, country = excluded.country, phones = excluded.phones,
            more = excluded.more
        returning $2 || jsonb_build_object('balance_cents', balance_cents), xmax = 0
        "#,
        r#"
        insert into products (id, name, price_cents, more)
        select $1, $2 ->> 'name', ($2 ->> 'price_cents')::bigint, $2 - array['name', 'price_cents']
        on conflict (id) do update
        set name = excluded.name, price_cents = excluded.price_cents, more = excluded.more
        returning $2 || jsonb_build_object('stock', stock), xmax = 0
        "#,
    ],
    add: [
        "update customers set balance_cents = balance_cents + $2 where id = $1 returning balance_cents",
        "update products set stock = stock + $2 where id = $1 returning stock",
    ],
    search: "select id, body from product_rows where more @> $1 and price_cents <= $2 order by price_cents, id limit 100",
    has_orders: "select exists (select from orders where customer = $1)",
    delete: "delete from customers where id = $1",
    keep_order: r#"
        with head as (
            insert into orders (id, customer, ordered_at, total_cents)
            select id, customer, ordered_at, total_cents
            from jsonb_to_record($1)
                as it (id text, customer text, ordered_at timestamptz, total_cents bigint)
        )
        insert into order_lines (order_id, product, name, quantity, price_cents)
        select $1 ->> 'id', product, name, quantity, price_cents
        from jsonb_to_recordset($1 -> 'lines')
            as it (product text, name text, quantity bigint, price_cents bigint)
    "#,
    // ANCHOR: orders_of
    // One join, however many orders there are.
    orders_of: r#"
        select orders.id, customer, ordered_at, total_cents,
            jsonb_agg(to_jsonb(line) - 'order_id' order by product) as lines
        from orders join order_lines as line on order_id = orders.id
        where customer = $1
        group by orders.id
        order by orders.id desc
        limit 100
    "#,
    // ANCHOR_END: orders_of
    // ANCHOR: revenue
    // A question that came later. Nothing was prepared for it.
    revenue: r#"
        select case when $1 then country end as country,
            case when $2 then to_char(ordered_at at time zone 'utc', 'YYYY-MM') end as month,
            count(*) as orders, sum(total_cents)::bigint as cents
        from orders join customers on customers.id = customer
        group by 1, 2
        order by 1, 2
    "#,
    // ANCHOR_END: revenue
};
