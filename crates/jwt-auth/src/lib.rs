//! "Describe JWT and its role in authentication."
//!
//! A login gives a signed access token of fifteen minutes, which every service verifies on its own, and a refresh token,
//! which is used once and shown only to us. Keys rotate through a published set; a refresh token that is used twice
//! ends its session; passwords are hashed by Argon2id, for unknown addresses too.
//!
//! In reading order: the naive version ([`whiteboard`]), what comes in ([`password`]), what a token says and who believes
//! it ([`claims`], [`jwks`], [`keyring`], [`deny`], [`verifier`]), who signs it ([`issuer`]), how a session goes on
//! ([`refresh`]) and where all is kept ([`store`]), how it fits together ([`sessions`]), and how it speaks HTTP
//! ([`error`], [`api`]).

pub mod whiteboard;
pub mod password;
pub mod claims;
pub mod jwks;
pub mod keyring;
pub mod deny;
pub mod verifier;
pub mod issuer;
pub mod refresh;
pub mod store;
pub mod sessions;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use lab::{Answer, Serve, Service, Serving};
use tokio::task::JoinSet;
use url::Url;

use crate::{
    claims::{Names, Policy},
    deny::DenyList,
    issuer::{Issuer, Schedule, seconds},
    keyring::Keyring,
    password::{Cost, Passwords},
    sessions::Sessions,
    store::{Store, throttle::Limits},
    verifier::Verifier,
};

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    #[command(flatten)]
    names: Names,
    #[command(flatten)]
    schedule: Schedule,
    /// Serves `GET /me` only, by the key set at this address: no database, no secrets
    #[arg(long, value_name = "URL", value_parser = jwks::parse_url)]
    jwks: Option<Url>,
    /// Asks Redis with each request whether its session or its key is denied
    #[arg(long)]
    deny_list: bool,
    /// What its keys in Redis begin with
    #[arg(long, default_value = "worked-answers:jwt-auth:", value_name = "PREFIX")]
    redis_prefix: String,
    /// Takes out a signing key that was stolen, and ends; give the options of the other processes, but `--port 0`
    #[arg(long, value_name = "KID")]
    withdraw_key: Option<String>,
    /// Seconds that a session lives if it is not refreshed
    #[arg(long, default_value = "2592000", value_parser = seconds)]
    refresh_seconds: Duration,
    /// Seconds that a session lives, however often it is refreshed
    #[arg(long, default_value = "7776000", value_parser = seconds)]
    session_seconds: Duration,
    /// Seconds within which a refresh token may be used again
    #[arg(long, default_value = "10", value_parser = seconds)]
    grace_seconds: Duration,
    #[command(flatten)]
    cost: Cost,
    #[command(flatten)]
    limits: Limits,
    /// A load balancer, or a network of them, whose `X-Forwarded-For` tells the client's address
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<TrustedProxy>,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "jwt-auth",
        question: "Describe JWT and its role in authentication",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&store::MIGRATIONS),
        try_it: &[
            "email=ann-$(date +%s)@example.com",
            r#"curl -i {url}/register -H 'content-type: application/json' -d "{\"email\":\"$email\",\"password\":\"seven quiet otters at noon\"}""#,
            r#"token=$(curl -s {url}/login -H 'content-type: application/json' -d "{\"email\":\"$email\",\"password\":\"seven quiet otters at noon\"}" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
            r#"curl -i {url}/me -H "authorization: Bearer $token""#,
            "curl -s {url}/.well-known/jwks.json",
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let Options { names, schedule, .. } = options;
    let policy = Policy::new(&names, schedule.leeway_seconds);
    let deny = if options.deny_list {
        let redis = serving.server(Service::Redis).await?;
        Some(DenyList::new(&redis, &options.redis_prefix)?)
    } else {
        None
    };
    let mut tasks = JoinSet::new();
    let router = if let Some(key_set) = &options.jwks {
        // Another service, which has nothing but the address of the key set.
        let keyring = Arc::new(Keyring::new(jwks::remote(key_set)?));
        tasks.spawn(Arc::clone(&keyring).keep_fresh(schedule.key_set_max_age));
        api::guarded_router(Verifier::new(policy, keyring, deny))
    } else {
        let published_in_time = schedule.publish_ahead() < schedule.key_life;
        ensure!(published_in_time, "--key-seconds must be more than three times --jwks-seconds");
        let store = Store::new(&serving.database().await?)?;
        let sessions = Sessions {
            store: store.clone(),
            issuer: Issuer::new(store.clone(), names, schedule),
            passwords: Passwords::new(options.cost)?,
            limits: options.limits,
            lives: [options.refresh_seconds, options.session_seconds],
            grace: options.grace_seconds,
            deny: deny.clone(),
        };
        if let Some(kid) = options.withdraw_key {
            let found = sessions.withdraw(&kid).await?;
            println!(
                "{kid}: {}",
                if found { "withdrawn" } else { "there is no such key any more" }
            );
            return Ok(());
        }
        let keyring = Arc::clone(&sessions.issuer.keyring);
        tasks.spawn(Arc::clone(&keyring).keep_fresh(schedule.check_every()));
        tasks.spawn(store.keep_swept());
        let verifier = Verifier::new(policy, keyring, deny);
        let proxies = TrustedProxies::new(options.trusted_proxies, ProxyHeader::XForwardedFor);
        api::router(Arc::new(api::Service { sessions, verifier, proxies }))
    };
    serving.run(router).await?;
    tasks.shutdown().await;
    Ok(())
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    let database = serving.database().await?;
    serving.run(whiteboard::router(&database)?).await
}
