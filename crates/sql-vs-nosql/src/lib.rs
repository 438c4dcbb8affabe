//! "Differentiate between SQL and NoSQL databases."
//!
//! The label decides little, the access pattern decides. One shop is kept in three ways behind one port: in tables, in
//! documents, and under keys. The first two are one program with two sets of statements.
//!
//! In reading order: the naive version ([`whiteboard`]); what is kept ([`entity`]), in which version ([`schema`]), what an
//! order takes ([`order`]) and what may be asked ([`query`]); the stores: [`postgres`] in [`tables`] or in [`documents`],
//! and [`key_value`], behind one port ([`store`]); and how it speaks HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod entity;
pub mod schema;
pub mod order;
pub mod query;
pub mod postgres;
pub mod tables;
pub mod documents;
pub mod key_value;
pub mod store;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use lab::{Answer, Serve, Service, Serving};

pub use postgres::MIGRATIONS;

use crate::store::{Model, Store};

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// How the shop is kept
    #[arg(long, value_enum, default_value_t = Model::Tables)]
    store: Model,
    /// What the keys in Redis begin with
    #[arg(long, env = "KEY_PREFIX", default_value = "worked-answers:sql-vs-nosql:")]
    key_prefix: String,
    /// The URL of a standby of the database, to read customers and products from
    #[arg(long, value_name = "URL")]
    replica: Option<String>,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "sql-vs-nosql",
        question: "Differentiate between SQL and NoSQL databases",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres, Service::Redis],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"curl -i -X PUT {url}/customers/ada -H 'content-type: application/json' -d '{"name":"Ada","country":"GB","favourite":{"tea":"green"}}'"#,
            r#"curl -s {url}/customers/ada/deposits -H 'content-type: application/json' -d '{"amount":5000}'"#,
            r#"curl -s -X PUT {url}/products/tea -H 'content-type: application/json' -d '{"name":"Tea","price_cents":250,"colour":"green"}'"#,
            r#"curl -s {url}/products/tea/deliveries -H 'content-type: application/json' -d '{"amount":10}'"#,
            r#"curl -i {url}/orders -H 'content-type: application/json' -d '{"customer":"ada","lines":{"tea":2}}'"#,
            "curl -s '{url}/products?colour=green&max_price=500'",
            "curl -s '{url}/reports/revenue?by=country,month'",
            "curl -s {url}/consistency",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let Options { store, key_prefix, replica } = options;
    let (database, redis) = (serving.database().await?, serving.server(Service::Redis).await?);
    let store = Store::new(store, (&database, replica.as_deref()), (&redis, &key_prefix))?;
    serving.run(api::router(store)).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let (database, redis) = (serving.database().await?, serving.server(Service::Redis).await?);
    serving.run(whiteboard::router(&database, &redis).await?).await
}
