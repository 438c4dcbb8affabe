create schema recommendations;

-- Who bought what, as the orders' events told it. The order's id makes an event that comes twice count once.
create table recommendations.bought (
    order_id uuid primary key,
    customer bigint not null,
    product bigint not null
);

create index bought_by_product on recommendations.bought (product, customer);
create index bought_by_customer on recommendations.bought (customer, product);
