//! "Optimize a slow SQL query."
//!
//! First find out why it is slow: `explain (analyze, buffers)` tells rows, pages and loops, and `pg_stat_activity` tells
//! whether the query works or waits. Then try one remedy, and compare before and after: the pages, and the rows, which must
//! be the same. Most of the usual remedies help one query, do nothing for another, and harm or falsify a third.
//!
//! In reading order: the naive version ([`whiteboard`]); what PostgreSQL says of a query ([`plan`], [`waits`]) and what is
//! wrong with it ([`finding`]); the slow queries and their remedies ([`patient`]); whether two results are the same
//! ([`tally`]), and what a remedy did ([`treatment`], [`drawing`]); every statement ([`store`]); and how it speaks
//! HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod plan;
pub mod waits;
pub mod finding;
pub mod patient;
pub mod tally;
pub mod treatment;
pub mod drawing;
pub mod error;
pub mod store;
pub mod api;
pub mod cases;
pub mod experiments;

use lab::{Answer, Serve, Service, Serving};

use crate::store::Store;

/// What `serve` understands.
#[derive(clap::Args, Clone, Copy, Debug)]
struct Options {
    /// Events that are made when the tables are empty. With fewer, some patients are not ill; with more, one takes minutes
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(i64).range(10_000..=200_000))]
    events: i64,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "slow-query",
        question: "Optimize a slow SQL query",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&store::MIGRATIONS),
        try_it: &[
            "curl -s {url}/patients/rare-latest",
            "curl -s -X POST {url}/patients/rare-latest/diagnosis",
            r#"curl -s {url}/patients/rare-latest/remedies/index-kind -H 'content-type: application/json' -d '{"dry_run":true}'"#,
            r#"curl -s {url}/patients/rare-latest/remedies/index-kind-created -H 'content-type: application/json' -d '{"dry_run":true}'"#,
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let store = Store::new(&serving.database().await?)?;
    store.fill_if_empty(options.events).await?;
    serving.run(api::router(store)).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}
