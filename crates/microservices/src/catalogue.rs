//! What is sold? The catalogue's functions, and how they are called where it is a service.

use edge::{Mistakes, text::is_line};
use serde::{Deserialize, Serialize};
use sqlx::{query, query_as};

use crate::call::Call;
use crate::error::{Error, Result};
use crate::module::Database;
use crate::reach::calls;

/// A row of `catalogue.products`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub struct Product {
    /// The shop's own number.
    pub id: i64,
    /// One line.
    pub name: String,
    /// For one of it, before all rules.
    pub cents: i64,
}

/// A product as the shop puts it up for sale.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name` and `cents`")]
pub struct ProductInput {
    name: String,
    cents: i64,
}

impl ProductInput {
    /// The product under this number. All mistakes are told at once.
    pub fn parse(self, id: i64) -> Result<Product> {
        let mut mistakes = Mistakes::default();
        let line = !self.name.trim().is_empty() && self.name.chars().count() <= 200;
        let name = (line && is_line(&self.name)).then_some(self.name);
        let name = mistakes.note("name", name.ok_or("must be one line of 1 to 200 characters"));
        let cents = (0..=100_000_000).contains(&self.cents).then_some(self.cents);
        let cents = mistakes.note("cents", cents.ok_or("must be from 0 to 100000000"));
        let product = name.zip(cents).map(|(name, cents)| Product { id, name, cents });
        mistakes.finish(product).map_err(Error::Invalid)
    }
}

/// The module itself.
#[derive(Clone, Debug)]
pub struct Catalogue {
    /// With the schema `catalogue`.
    pub database: Database,
}

impl Catalogue {
    /// Puts a product up for sale, or changes it, and tells others of it.
    pub async fn put(&self, _: &Call, product: Product) -> Result<()> {
        let Product { id, name, cents } = product;
        let put = query(
            r#"
            with put as (
                insert into catalogue.products (id, name, cents)
                values ($1, $2, $3)
                on conflict (id) do update set name = $2, cents = $3
                returning id
            )
            insert into catalogue.outbox (event)
            select jsonb_build_object('kind', 'product_changed', 'of', jsonb_build_array(id, $2))
            from put
            "#,
        );
        self.database.execute(put.bind(id).bind(name).bind(cents)).await.map(drop)
    }

    /// One product.
    pub async fn product(&self, _: &Call, id: i64) -> Result<Product> {
        let find = "select id, name, cents from catalogue.products where id = $1";
        let find = query_as(find).bind(id);
        let found = self.database.within(async |it| find.fetch_optional(it).await).await?;
        found.ok_or(Error::NOT_FOUND)
    }

    /// Those of these that there are.
    pub async fn products(&self, _: &Call, ids: Vec<i64>) -> Result<Vec<Product>> {
        let find = "select id, name, cents from catalogue.products where id = any($1) order by id";
        let find = query_as(find).bind(ids);
        self.database.within(async |it| find.fetch_all(it).await).await
    }
}

// ANCHOR: calls
calls! { Catalogue as "catalogue":
    put(Product) -> ();
    product(i64) -> Product;
    products(Vec<i64>) -> Vec<Product>;
}
// ANCHOR_END: calls

/// A number in a path, written as we write it.
pub fn number(text: &str) -> Result<i64> {
    let id = text.parse::<i64>().ok().filter(|id| *id > 0 && id.to_string() == text);
    id.ok_or(Error::NOT_FOUND)
}
