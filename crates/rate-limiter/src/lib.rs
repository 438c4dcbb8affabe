//! "Implement rate limiting in an API."
//!
//! Five algorithms say whether a client has quota left. They count in one process, or in Redis for all processes.
//! There, a decision is one step that no other request can come between. A `tower` layer asks them before a handler
//! runs, and tells the client where it stands. Nothing that a client can make up decides whose quota it is.
//!
//! In reading order: first the answer as one writes it in an interview ([`whiteboard`]); then what is allowed
//! ([`quota`]), how it is counted ([`algorithm`], [`window`], [`sliding_log`], [`bucket`]), for whom ([`client`]), where
//! ([`memory`], [`connection`], [`shared`], [`lease`]), by whom ([`limiter`]), and how it speaks HTTP ([`error`],
//! [`layer`], [`api`]).

pub mod whiteboard;
pub mod quota;
pub mod algorithm;
pub mod window;
pub mod sliding_log;
pub mod bucket;
pub mod client;
pub mod memory;
pub mod connection;
pub mod shared;
pub mod lease;
pub mod limiter;
pub mod error;
pub mod layer;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{num::NonZeroU32, time::Duration};

use anyhow::Context;
use axum::http::request::Parts;
use clap::ValueEnum;
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use lab::{Answer, Serve, Service, Serving};

use crate::{
    algorithm::{Algorithm, Limits},
    client::{Clients, Key},
    layer::RateLimit,
    limiter::{Limiter, Store, WhenAway},
    memory::{Memory, monotonic},
    quota::{Policy, Quota, parse_duration},
    shared::Shared,
};

/// Where requests are counted.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StoreKind {
    /// In this process
    Memory,
    /// In Redis, for all processes together
    Redis,
}

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// How requests are counted
    #[arg(long, value_enum, default_value = "token-bucket")]
    algorithm: Algorithm,
    /// Units that a client has in a window
    #[arg(long, default_value = "100")]
    limit: NonZeroU32,
    /// How long a window is: 500ms, 1s, 15m, 1h, 1d
    #[arg(long, default_value = "15m", value_parser = parse_duration)]
    window: Duration,
    /// One more policy, NAME=LIMIT/WINDOW, such as burst=10/1s. A request passes if all policies have room for it
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<Policy>,
    /// Where requests are counted
    #[arg(long, value_enum, default_value = "redis")]
    store: StoreKind,
    /// What to do while Redis is away
    #[arg(long, value_enum, default_value_t)]
    when_away: WhenAway,
    /// How long Redis may take to answer
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    store_timeout: Duration,
    /// Units that this process takes from Redis at once for a client; 1 for exact decisions
    #[arg(long, value_name = "UNITS", default_value = "1")]
    lease: NonZeroU32,
    /// What every Redis key begins with
    #[arg(long, default_value = "worked-answers:rate-limiter:")]
    prefix: String,
    /// The most clients that this process remembers
    #[arg(long, default_value_t = 100_000)]
    max_keys: usize,
    /// Whether a refused request costs quota too
    #[arg(long)]
    count_refused: bool,
    /// Units that `GET /api/report` costs
    #[arg(long, default_value_t = 10)]
    report_cost: u32,
    /// A user's name and API key. A request without a known key is limited by its address, IPv6 by /64
    #[arg(long = "user", value_name = "NAME:KEY")]
    users: Vec<String>,
    /// A proxy, or a network of them, whose header about its client is believed
    #[arg(long = "trusted-proxy", value_name = "CIDR")]
    trusted_proxies: Vec<TrustedProxy>,
    /// The header that the trusted proxies write: x-forwarded-for or forwarded
    #[arg(long, value_name = "HEADER", default_value_t)]
    proxy_header: ProxyHeader,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "rate-limiter",
        question: "Implement rate limiting in an API",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Redis],
        migrations: None,
        try_it: &[
            "curl -i {url}/api/hello",
            "curl -i {url}/api/report     # costs ten",
            "for i in $(seq 120); do curl -s -o /dev/null -w '%{http_code} ' {url}/api/hello; done; echo",
            "curl -s {url}/metrics",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    serving.run(whiteboard::router()).await
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let mut policies = vec![Policy::new("api", Quota::new(options.limit.get(), options.window)?)?];
    policies.extend(options.policies);
    let limits = Limits::new(options.algorithm, policies)?.counting_refused(options.count_refused);
    let store = match options.store {
        StoreKind::Memory => Store::Memory(Memory::new(&limits, options.max_keys, monotonic())),
        StoreKind::Redis => {
            let url = serving.server(Service::Redis).await?;
            let shared = Shared::new(&url, &options.prefix, options.store_timeout)?;
            let remember = (options.lease.get().into(), options.max_keys);
            Store::redis(&limits, shared, options.when_away, remember, &monotonic())
        }
    };
    let users = options.users.iter().map(|user| parse_user(user));
    let clients = Clients {
        proxies: TrustedProxies::new(options.trusted_proxies, options.proxy_header),
        users: users.collect::<anyhow::Result<_>>()?,
    };
    let cost = move |request: &Parts| match request.uri.path() {
        "/report" => options.report_cost.into(),
        _ => 1,
    };
    let limiter = Limiter::new(limits, store);
    let rate_limit = RateLimit::new(limiter, move |request| clients.key(request), cost);
    serving.run(api::router(rate_limit, options.store_timeout)).await
}

/// `NAME:KEY`, as the digest of the key, and the name.
fn parse_user(user: &str) -> anyhow::Result<(Key, String)> {
    let pair = user.split_once(':').filter(|(name, key)| !name.is_empty() && !key.is_empty());
    let (name, key) = pair.context("write --user as NAME:KEY, with neither part empty")?;
    Ok((Key::of("api-key", key.as_bytes()), name.to_owned()))
}
