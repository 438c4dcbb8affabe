//! What did others buy too? It learns from the orders' events, and a page can do without it.

use sqlx::{query, query_scalar};

use crate::call::Call;
use crate::error::Result;
use crate::module::{Database, Event, Numbered};
use crate::reach::calls;

/// The module itself.
#[derive(Clone, Debug)]
pub struct Recommendations {
    /// With the schema `recommendations`.
    pub database: Database,
}

impl Recommendations {
    /// What was bought most often by those who bought this; at most two.
    pub async fn with(&self, _: &Call, product: i64) -> Result<Vec<i64>> {
        let find = query_scalar(
            r#"
            select other.product
            from recommendations.bought as this
            join recommendations.bought as other on other.customer = this.customer
            where this.product = $1 and other.product <> $1
            group by other.product
            order by count(distinct other.customer) desc, other.product
            limit 2
            "#,
        );
        let find = find.bind(product);
        self.database.within(async |it| find.fetch_all(it).await).await
    }

    /// Learns from an order. An event that comes twice counts once.
    pub async fn hear(&self, Numbered { event, .. }: &Numbered) -> Result<()> {
        let Event::OrderPlaced(order, customer, product) = event else { return Ok(()) };
        let learn = query(
            r#"
            insert into recommendations.bought (order_id, customer, product)
            values ($1, $2, $3)
            on conflict (order_id) do nothing
            "#,
        );
        let learn = learn.bind(order).bind(customer).bind(product);
        self.database.execute(learn).await.map(drop)
    }
}

calls! { Recommendations as "recommendations":
    with(i64) -> Vec<i64>;
}
