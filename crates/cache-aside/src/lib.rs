//! "What is caching and how to implement it with Redis?"
//!
//! A user is read from Redis, and from PostgreSQL when Redis has none; a change deletes it from Redis. What
//! the textbook leaves out is here: who loads when a thousand miss at once, what keeps an old value from being
//! filled in after the delete, and what happens to a delete that cannot reach Redis.
//!
//! In reading order: what is cached ([`user`], [`store`]), in what form ([`value`]) and for how
//! long ([`ttl`], [`absence`], [`refresh`]); how Redis is spoken to ([`link`]) and when it is believed
//! ([`trust`]); who loads ([`flight`], [`gate`], [`lease`]), how that makes a read ([`source`], [`read`],
//! [`many`]) and a change ([`write`](mod@write)); how it is tuned ([`tuning`]), put together ([`service`]) and speaks
//! HTTP ([`error`], [`body`], [`api`]).

pub mod user;
pub mod store;
pub mod value;
pub mod ttl;
pub mod absence;
pub mod refresh;
pub mod link;
pub mod trust;
pub mod flight;
pub mod gate;
pub mod lease;
pub mod source;
pub mod read;
pub mod many;
pub mod write;
pub mod tuning;
pub mod service;
pub mod error;
pub mod body;
pub mod api;
pub mod cases;
pub mod experiments;

use std::sync::Arc;

use lab::{Answer, Serve, Service, Serving};

use crate::{service::App, tuning::Tuning};

pub use store::MIGRATIONS;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Where Redis is, if not where it is found or started; need not be there yet
    #[arg(long, value_name = "URL", env = "REDIS_URL", hide_env_values = true)]
    redis: Option<String>,
    #[command(flatten)]
    tuning: Tuning,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "cache-aside",
        question: "What is caching and how to implement it with Redis?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres, Service::Redis],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            r#"id=$(curl -s {url}/users -H 'content-type: application/json' -d "{\"name\":\"Ada\",\"email\":\"ada-$(date +%s)@example.org\"}" | sed 's/[^0-9]*\([0-9]*\).*/\1/')"#,
            "curl -i {url}/users/$id    # twice: see Cache-Status",
            r#"curl -i -X PUT {url}/users/$id -H 'content-type: application/json' -d "{\"name\":\"Ada L.\",\"email\":\"ada-$id@example.org\"}""#,
        ],
        serve: Serve::new(serve),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let database = serving.database().await?;
    // One that was named is taken at its word: whether it is there is for the breaker to find out.
    let redis = match options.redis.filter(|url| !url.is_empty()) {
        Some(url) => url,
        None => serving.server(Service::Redis).await?,
    };
    let started = App::start(&database, &redis, &options.tuning).await;
    let app = started.map_err(|error| anyhow::anyhow!("{error}"))?;
    serving.run(api::router(Arc::clone(&app.service))).await?;
    app.stop().await;
    Ok(())
}
