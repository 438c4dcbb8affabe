//! "Design a URL shortener service."
//!
//! A link's code is computed, drawn or counted, and the primary key decides who owns it. Codes are
//! spread over databases by a consistent-hash ring, and hot links are served from memory, never past
//! their expiry. Clicks are queued, added up and written in batches, so no redirect waits for one.
//!
//! In reading order: what comes in ([`long_url`], [`alias`]), how it becomes a code ([`code`],
//! [`permutation`]), where it is kept ([`ring`], [`store`], [`shards`]), how it comes to be there
//! ([`create`], [`reshard`]), how it is served ([`cache`], [`referrer`], [`clicks`]), what keeps the service well
//! ([`sweep`], [`limit`]), and how it is put together ([`service`]) and speaks HTTP ([`error`], [`body`], [`api`]).

pub mod long_url;
pub mod alias;
pub mod code;
pub mod permutation;
pub mod ring;
pub mod store;
pub mod shards;
pub mod create;
pub mod reshard;
pub mod cache;
pub mod referrer;
pub mod clicks;
pub mod sweep;
pub mod limit;
pub mod service;
pub mod error;
pub mod body;
pub mod api;
pub mod cases;
pub mod experiments;

use std::num::NonZeroU32;

use lab::{Answer, Serve, Service, Serving};
use url::Url;

use crate::{
    code::Codes,
    service::{App, Config},
    shards::Shards,
};

pub use store::MIGRATIONS;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// How codes are made
    #[arg(long, value_enum, default_value_t)]
    codes: Codes,
    /// The URL of a `PostgreSQL` database; given more than once, the links are spread over them.
    /// Add new ones at the end
    #[arg(long = "shard", value_name = "URL")]
    shards: Vec<String>,
    /// Before serving, moves the links that a new shard should hold to where they belong
    #[arg(long)]
    reshard: bool,
    /// Links that one client may create in a second; twice as many at once
    #[arg(long, default_value = "100")]
    creates_per_second: NonZeroU32,
    /// Where clients reach the service, if not where it listens
    #[arg(long, value_name = "URL")]
    public_url: Option<Url>,
}

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
        serve: Serve::new(serve),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let mut shards = options.shards;
    if shards.is_empty() {
        shards.push(serving.database().await?);
    } else {
        for url in &shards {
            serving.migrate(url).await?;
        }
    }
    if options.reshard {
        let moved = reshard::reshard(&Shards::new(&shards)?).await?;
        tracing::info!(moved, "links are where they belong");
    }
    let app = App::start(Config {
        shards,
        codes: options.codes,
        public_url: options.public_url.unwrap_or_else(|| serving.url().clone()),
        creates_per_second: options.creates_per_second,
    })?;
    serving.run(api::router(app.service())).await?;
    app.stop().await;
    Ok(())
}
