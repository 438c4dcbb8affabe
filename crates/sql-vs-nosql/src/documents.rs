//! The shop in documents: each thing is one piece of JSON, with all that belongs to it.

use crate::postgres::Statements;

/// Its statements.
pub const SQL: Statements = Statements {
    // A document was written by whatever version of whatever program there was.
    any_shape: true,
    find: [
        "select body from customer_documents where id = $1",
        "select body from product_documents where id = $1",
    ],
    // The amount stays what it is: it is not the client's.
    put: [
        r#"
        insert into customer_documents as kept (id, body) values ($1, $2 || '{"balance_cents": 0}')
        on conflict (id) do update
        set body = $2 || jsonb_build_object('balance_cents', kept.body -> 'balance_cents')
        returning body, xmax = 0
        "#,
        r#"
        insert into product_documents as kept (id, body) values ($1, $2 || '{"stock": 0}')
        on conflict (id) do update
        set body = $2 || jsonb_build_object('stock', kept.body -> 'stock')
        returning body, xmax = 0
        "#,
    ],
    // A part of a document changes in one statement too, though PostgreSQL writes all of it again.
    add: [
        r#"
        update customer_documents
        set body = jsonb_set(body, '{balance_cents}', to_jsonb((body ->> 'balance_cents')::bigint + $2))
        where id = $1 returning (body ->> 'balance_cents')::bigint
        "#,
        r#"
        update product_documents
        set body = jsonb_set(body, '{stock}', to_jsonb((body ->> 'stock')::bigint + $2))
        where id = $1 returning (body ->> 'stock')::bigint
        "#,
    ],
    search: "select id, body from product_documents where body @> $1 and (body ->> 'price_cents')::bigint <= $2 order by (body ->> 'price_cents')::bigint, id limit 100",
    has_orders: "select exists (select from order_documents where body ->> 'customer' = $1)",
    delete: "delete from customer_documents where id = $1",
    keep_order: "insert into order_documents (id, body) values ($1 ->> 'id', $1)",
    // ANCHOR: orders_of
    // The lines are in the order: nothing is joined.
    orders_of: r#"
        select id, body ->> 'customer' as customer, (body ->> 'ordered_at')::timestamptz as ordered_at,
            (body ->> 'total_cents')::bigint as total_cents, body -> 'lines' as lines
        from order_documents
        where body ->> 'customer' = $1
        order by id desc
        limit 100
    "#,
    // ANCHOR_END: orders_of
    // ANCHOR: revenue
    // Documents can be joined too, where the database can.
    revenue: r#"
        select case when $1 then customer.body ->> 'country' end as country,
            case when $2 then left(it.body ->> 'ordered_at', 7) end as month,
            count(*) as orders, sum((it.body ->> 'total_cents')::bigint)::bigint as cents
        from order_documents as it
        join customer_documents as customer on customer.id = it.body ->> 'customer'
        group by 1, 2
        order by 1, 2
    "#,
    // ANCHOR_END: revenue
};
