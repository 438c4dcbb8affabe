//! "Explain database transactions and ACID properties."
//!
//! A bank. A transfer is one transaction: it claims its idempotency key, locks both accounts in order, moves the
//! money and writes two entries that sum to zero; all of it happens, once, or none. Transactions that
//! the database refuses because they were in each other's way are run again, in one place.
//!
//! In reading order: the naive version ([`whiteboard`]), what comes in ([`amount`], [`order`], [`idempotency`]), how a
//! transaction is run ([`retry`], [`database`]), what is kept ([`store`]), what a transfer is ([`bank`]), and how it
//! speaks HTTP ([`error`], [`body`], [`api`]).

pub mod whiteboard;
pub mod amount;
pub mod order;
pub mod idempotency;
pub mod retry;
pub mod database;
pub mod store;
pub mod bank;
pub mod error;
pub mod body;
pub mod api;
pub mod cases;
pub mod experiments;

use std::sync::Arc;

use lab::{Answer, Serve, Service, Serving};

use crate::{bank::Bank, database::Isolation};

pub use store::MIGRATIONS;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// How well transfers are kept apart
    #[arg(long, value_enum, default_value_t)]
    isolation: Isolation,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "transaction-demo",
        question: "Explain database transactions and ACID properties",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"ada=$(curl -s {url}/accounts -H 'content-type: application/json' -H "idempotency-key: ada-$(date +%s)" -d '{"owner":"Ada","balance_cents":10000}' | sed 's/[^0-9]*\([0-9]*\).*/\1/')"#,
            r#"bob=$(curl -s {url}/accounts -H 'content-type: application/json' -H "idempotency-key: bob-$(date +%s)" -d '{"owner":"Bob","balance_cents":0}' | sed 's/[^0-9]*\([0-9]*\).*/\1/')"#,
            r#"curl -i {url}/transfers -H 'content-type: application/json' -H "idempotency-key: rent-$(date +%s)" -d "{\"from\":$ada,\"to\":$bob,\"amount_cents\":2500}""#,
            "curl -s {url}/accounts/$ada/entries",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let bank = Bank::new(&serving.database().await?, options.isolation)?;
    serving.run(api::router(Arc::new(bank))).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?).await?;
    serving.run(router).await
}
