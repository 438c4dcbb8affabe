//! "Design a URL shortener service."
//!
//! A link's code is a checksum or random, and the primary key decides who owns it. A consistent-hash ring spreads the
//! codes over databases, and each process serves hot links from memory, never past their expiry. Clicks are added up in
//! memory and written in batches, so no redirect waits for one.
//!
//! In reading order: what comes in ([`long_url`]) and how it becomes a code ([`code`]), who may do what ([`access`]),
//! what is kept ([`store`]) and where ([`ring`], [`reshard`]), how a link is made ([`create`]), how it is served
//! ([`cache`]) and counted ([`clicks`]), how all that is put together ([`service`]) and speaks HTTP ([`error`],
//! [`api`]). [`whiteboard`] is the answer as one writes it in an interview.

pub mod long_url;
pub mod code;
pub mod access;
pub mod store;
pub mod ring;
pub mod reshard;
pub mod create;
pub mod cache;
pub mod clicks;
pub mod service;
pub mod error;
pub mod api;
pub mod whiteboard;
pub mod cases;
pub mod experiments;

use std::sync::Arc;

use lab::{Answer, Serve, Service, Serving};

use crate::service::Options;

pub use store::MIGRATIONS;

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "url-shortener",
        question: "Design a URL shortener service",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            "alias=rust-$(date +%s)",
            r#"curl -i {url}/links -H 'content-type: application/json' -d "{\"url\":\"https://www.rust-lang.org/\",\"alias\":\"$alias\"}""#,
            "curl -i {url}/$alias",
            "curl -s {url}/links/$alias/stats",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(mut options: Options, serving: Serving) -> anyhow::Result<()> {
    for url in &options.shards {
        serving.migrate(url).await?;
    }
    if options.shards.is_empty() {
        options.shards.push(serving.database().await?);
    }
    let service = service::Service::start(options, serving.url().clone()).await?;
    serving.run(api::router(Arc::clone(&service))).await?;
    service.stop().await;
    Ok(())
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let router = whiteboard::router(&serving.database().await?, serving.url().as_str()).await?;
    serving.run(router).await
}
