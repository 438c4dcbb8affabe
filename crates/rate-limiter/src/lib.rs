//! "Implement rate limiting in an API."
//!
//! Five algorithms say whether a client has quota left, each a page; they count in one process, or in Redis for all
//! processes, in one step that nobody can come between. A `tower` layer asks them before a handler runs, and tells the
//! client where it stands. Whose quota it is decides nothing that a client can write.
//!
//! In reading order: what is allowed and what is decided ([`quota`], [`decision`]), how it is counted ([`algorithm`],
//! [`fixed_window`], [`sliding_log`], [`sliding_window`], [`token_bucket`], [`gcra`], [`limits`]), for whom ([`key`], [`client`]),
//! where ([`memory`], [`connection`], [`shared`]), by whom ([`limiter`]), and how it speaks HTTP ([`fields`], [`error`],
//! [`layer`], [`api`]).

pub mod quota;
pub mod decision;
pub mod algorithm;
pub mod fixed_window;
pub mod sliding_log;
pub mod sliding_window;
pub mod token_bucket;
pub mod gcra;
pub mod limits;
pub mod key;
pub mod client;
pub mod memory;
pub mod connection;
pub mod shared;
pub mod limiter;
pub mod fields;
pub mod error;
pub mod layer;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{num::NonZeroU32, time::Duration};

use anyhow::Context;
use axum::http::request::Parts;
use clap::ValueEnum;
use ipnet::IpNet;
use lab::{Answer, Serve, Service, Serving};

use crate::{
    algorithm::Algorithm,
    client::{Clients, KeyBy, ProxyHeader},
    key::Key,
    layer::{MAX_KEYS, RateLimitLayer},
    limiter::{Store, WhenAway},
    limits::Limits,
    quota::{Policy, Quota, parse_duration},
    shared::Shared,
};

/// Where it is counted.
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
    /// One more policy, NAME=LIMIT/WINDOW, such as burst=10/1s; all must have room, or none is taken
    #[arg(long = "policy", value_name = "POLICY")]
    policies: Vec<Policy>,
    /// Where it is counted
    #[arg(long, value_enum, default_value = "redis")]
    store: StoreKind,
    /// What to do while Redis is away
    #[arg(long, value_enum, default_value_t)]
    when_away: WhenAway,
    /// How long Redis may take to answer
    #[arg(long, default_value = "500ms", value_parser = parse_duration)]
    store_timeout: Duration,
    /// What every Redis key begins with
    #[arg(long, default_value = "worked-answers:rate-limiter:")]
    prefix: String,
    /// Clients to remember in this process at most
    #[arg(long, default_value_t = MAX_KEYS)]
    max_keys: usize,
    /// Whether a refused request costs quota too
    #[arg(long)]
    count_refused: bool,
    /// Units that `GET /api/report` costs
    #[arg(long, default_value_t = 10)]
    report_cost: u32,
    /// What clients are told apart by
    #[arg(long = "key", value_enum, default_value_t)]
    key_by: KeyBy,
    /// An API key that is good, NAME:KEY; a user may have several
    #[arg(long = "user", value_name = "NAME:KEY")]
    users: Vec<String>,
    /// A proxy, or a network of them, whose header about its client is believed
    #[arg(long = "trusted-proxy", value_name = "CIDR", value_parser = parse_network)]
    trusted_proxies: Vec<IpNet>,
    /// Which header those write
    #[arg(long, value_enum, default_value_t)]
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
        serve: Serve::new(serve),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let mut policies = vec![Policy::new("api", Quota::new(options.limit.get(), options.window)?)?];
    policies.extend(options.policies.iter().cloned());
    let store = match options.store {
        StoreKind::Memory => Store::memory(options.max_keys),
        StoreKind::Redis => {
            let url = serving.server(Service::Redis).await?;
            let shared = Shared::new(&url, &options.prefix, options.store_timeout)?;
            Store::redis(shared, options.when_away, options.max_keys)
        }
    };
    let clients = Clients {
        by: options.key_by,
        trusted: options.trusted_proxies,
        header: options.proxy_header,
        users: options.users.iter().map(|user| parse_user(user)).collect::<anyhow::Result<_>>()?,
    };
    let report_cost = options.report_cost;
    let cost = move |request: &Parts| if request.uri.path() == "/report" { report_cost } else { 1 };
    let limit = RateLimitLayer::with_limits(Limits::new(options.algorithm, policies)?)
        .key(move |request| clients.key(request))
        .cost(cost)
        .store(store)
        .count_refused(options.count_refused);
    serving.run(api::router(limit, options.store_timeout)).await
}

/// `NAME:KEY`, as the digest of the key, and the name.
fn parse_user(user: &str) -> anyhow::Result<(Key, String)> {
    let pair = user.split_once(':').filter(|(name, key)| !name.is_empty() && !key.is_empty());
    let (name, key) = pair.context("--user is NAME:KEY")?;
    Ok((Key::of("api-key", key.as_bytes()), name.to_owned()))
}

/// A network, or one address.
fn parse_network(text: &str) -> Result<IpNet, String> {
    let address = || text.parse().map(|address: std::net::IpAddr| IpNet::from(address));
    text.parse().or_else(|_| address()).map_err(|_| "write it as 10.0.0.0/8".to_owned())
}
