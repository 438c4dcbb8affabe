//! "What is a database index and why use it?"
//!
//! An index is a second copy of some columns, kept in an order that a search can use. The planner takes it when that is
//! cheaper than reading the table; each write has to keep it up to date. Here indexes are made, tried and dropped while
//! the table is in use.
//!
//! In reading order: the naive version ([`whiteboard`]); what may be indexed ([`index`]); what is asked ([`query`]) and
//! what the planner does with it ([`plan`], [`drawing`]); which indexes cost more than they bring ([`finding`])
//! and which would help ([`advice`]); the table in use
//! ([`user`]); every statement ([`store`]); how an index is built meanwhile ([`builder`]); and how it speaks HTTP
//! ([`error`], [`api`]).

pub mod whiteboard;
pub mod index;
pub mod query;
pub mod plan;
pub mod drawing;
pub mod user;
pub mod error;
pub mod store;
pub mod finding;
pub mod advice;
pub mod builder;
pub mod api;
pub mod cases;
pub mod experiments;

use std::sync::Arc;

use lab::{Answer, Serve, Service, Serving};

use crate::{advice::Seen, api::Workbench, builder::Builder, store::Store};

/// What `serve` understands.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Options {
    /// Users that are made when the table is empty
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(i64).range(0..=100_000_000))]
    rows: i64,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "database-index",
        question: "What is a database index and why use it?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&store::MIGRATIONS),
        try_it: &[
            r#"curl -s {url}/queries/by_email/run -H 'content-type: application/json' -d '{"params":{"email":"user777@example.org"}}'"#,
            r#"curl -i -X PUT {url}/indexes/idx_email -H 'content-type: application/json' -d '{"columns":["email"]}'"#,
            "curl -s {url}/indexes",
            "curl -s {url}/advice",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let store = Store::new(&serving.database().await?)?;
    store.fill_if_empty(options.rows).await?;
    let builder = Builder::start(store.clone());
    let workbench = Workbench { store, builder, seen: Seen::default() };
    serving.run(api::router(Arc::new(workbench))).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}
