//! "What is caching and how to implement it with Redis?"
//!
//! A user is read from Redis, and from PostgreSQL when Redis has none; a change deletes it from Redis. What
//! the textbook leaves out is here: who loads when a thousand miss at once, what keeps an old value from being
//! filled in after the delete, and what happens to a delete that cannot reach Redis.
//!
//! In reading order: what is cached ([`user`], [`store`]), in what form ([`value`]) and for how long ([`ttl`]); how
//! Redis is spoken to ([`link`], [`near`]) and when it is believed ([`trust`]); who loads in a process ([`flight`]), what
//! the service consists of ([`service`]), who loads in all processes ([`lease`]), how that makes a read ([`read`]) and a
//! change ([`write`](mod@write)); and how it speaks HTTP ([`error`], [`api`]).

pub mod user;
pub mod store;
pub mod value;
pub mod ttl;
pub mod link;
pub mod near;
pub mod trust;
pub mod flight;
pub mod service;
pub mod lease;
pub mod read;
pub mod write;
pub mod error;
pub mod api;
pub mod cases;
pub mod whiteboard;
pub mod experiments;

use std::sync::Arc;

use lab::{Answer, Serve, Service, Serving};

use crate::service::Tuning;

pub use store::MIGRATIONS;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// The URL of a Redis, which need not be there yet. Without it, `serve` looks for one or starts one
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
            r#"curl -i -X PUT {url}/users/$id -H 'if-match: "1"' -H 'content-type: application/json' -d "{\"name\":\"Ada L.\",\"email\":\"ada-$id@example.org\"}""#,
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let database = serving.database().await?;
    // A Redis that was named need not be there yet: the breaker finds out.
    let redis = match options.redis.filter(|url| !url.is_empty()) {
        Some(url) => url,
        None => serving.server(Service::Redis).await?,
    };
    let service = service::Service::start(&database, &redis, &options.tuning)
        .map_err(anyhow::Error::from_boxed)?;
    serving.run(api::router(Arc::clone(&service))).await?;
    service.stop().await;
    Ok(())
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let (database, redis) = (serving.database().await?, serving.server(Service::Redis).await?);
    serving.run(whiteboard::router(&database, &redis).await?).await
}
