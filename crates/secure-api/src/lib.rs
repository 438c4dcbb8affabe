//! "How to secure a backend API?"
//!
//! Invoices of several customers. Nothing can be reached without a check that its handler names; each statement is locked
//! twice to the rows of one customer; and what comes in is parsed into types that cannot hold what is not allowed.
//!
//! In reading order: the naive version ([`whiteboard`]); who asks ([`token`], [`login`]); what surrounds a call
//! ([`frame`]) and who may make it ([`may`]); what comes in and goes out ([`invoice`], [`page`], [`render`],
//! [`attachment`], [`webhook`]); what is kept ([`store`]); and how it speaks HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod token;
pub mod login;
pub mod frame;
pub mod may;
pub mod invoice;
pub mod page;
pub mod render;
pub mod attachment;
pub mod webhook;
pub mod store;
pub mod error;
pub mod api;
pub mod cases;
pub mod experiments;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use axum::http::HeaderValue;
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use edge::{header::is_origin, lookup::system_lookup, password::Passwords, secret::Secret};
use lab::{Answer, Serve, Service, Serving};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::api::Api;
use crate::login::Limits;
use crate::store::Store;
use crate::token::{Role, Tokens};
use crate::webhook::Webhooks;

/// The accounts of the demonstration: an address, its customer, its role. All have one password.
pub const ACCOUNTS: [(&str, &str, Role); 4] = [
    ("ada@acme.example", "Acme", Role::Clerk),
    ("vic@acme.example", "Acme", Role::Viewer),
    ("gil@globex.example", "Globex", Role::Clerk),
    ("olga@operator.example", "Operator", Role::Admin),
];

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    #[command(flatten)]
    limits: Limits,
    /// An origin whose pages may read answers, such as `https://app.example`
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<HeaderValue>,
    /// The one receiver of webhooks on this machine that may be called
    #[arg(long, value_name = "ADDRESS:PORT")]
    webhook_allow: Option<SocketAddr>,
    /// A proxy that ends TLS for us, and whose `X-Forwarded-For` tells the client's address
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<TrustedProxy>,
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "secure-api",
        question: "How to secure a backend API?",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&store::MIGRATIONS),
        try_it: &[
            r#"ada=$(printf '{"email":"ada@acme.example","password":"%s"}' "{password}" | curl -s {url}/login -H 'content-type: application/json' -d @- | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
            r#"gil=$(printf '{"email":"gil@globex.example","password":"%s"}' "{password}" | curl -s {url}/login -H 'content-type: application/json' -d @- | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
            r#"invoice=$(curl -si {url}/invoices -H "authorization: Bearer $ada" -H 'content-type: application/json' -d '{"title":"Tea","amount_cents":1200}' | tr -d '\r' | sed -n 's/^location: //p')"#,
            r#"curl -so /dev/null -w '%{http_code}\n' {url}$invoice -H "authorization: Bearer $gil"   # 404: it is another customer's"#,
            r#"curl -i {url}$invoice -H "authorization: Bearer $ada""#,
        ],
        serve: Serve::new(serve).whiteboard(serve_whiteboard),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let allowed = options.webhook_allow;
    let is_here = allowed.is_none_or(|address| address.ip().is_loopback());
    ensure!(is_here, "--webhook-allow is for this machine: name a loopback address");
    let is_private = serving.is_local() || !options.trusted_proxies.is_empty();
    ensure!(is_private, "without TLS others read all: name the proxy with TLS by --trusted-proxy");
    ensure!(options.origins.iter().all(is_origin), "--allow-origin: write https://app.example");
    let (password, shown) = password()?;
    let passwords = Passwords::new()?;
    let store = Store::new(&serving.database().await?)?;
    seed(&store, &passwords.hash(&password)?).await?;
    let api = Api {
        store,
        tokens: Arc::new(Tokens::new(key()?)?),
        passwords: Arc::new(passwords),
        limits: options.limits,
        proxies: TrustedProxies::new(options.trusted_proxies, ProxyHeader::XForwardedFor).into(),
        webhooks: Webhooks::new(allowed, system_lookup()),
        // More at once would make each slower, and take memory.
        documents: Arc::new(Semaphore::new(4)),
    };
    serving.word("password", shown).run(api::router(api, options.origins)).await
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    eprintln!("THIS IS THE CARELESS VERSION. Every attack works on it: give it no real data.");
    // Not the answer's own: its hashes would be overwritten.
    let database = serving.database_named("whiteboard", &store::MIGRATIONS).await?;
    let (password, shown) = password()?;
    seed(&Store::new(&database)?, &whiteboard::hash(password.expose())).await?;
    serving.word("password", shown).run(whiteboard::router(&database)?).await
}

/// The password of the accounts, and how the lines to try spell it: a given one is not printed.
fn password() -> anyhow::Result<(Secret, String)> {
    let given = Secret::load("SECURE_API_PASSWORD").context("the password cannot be read")?;
    let is_long = given.as_ref().is_none_or(|given| given.expose().chars().count() >= 15);
    ensure!(is_long, "the password must have 15 characters at least");
    let random = Uuid::new_v4().simple().to_string();
    Ok(match given {
        Some(given) => (given, "$SECURE_API_PASSWORD".to_owned()),
        None => (Secret::new(&*random), random),
    })
}

async fn seed(store: &Store, hash: &str) -> anyhow::Result<()> {
    for (email, customer, role) in ACCOUNTS {
        store.seed(email, customer, role, hash).await?;
    }
    Ok(())
}

/// The key that signs tokens: a digest of the secret, which is as hard to guess as that.
fn key() -> anyhow::Result<[u8; 32]> {
    let given = Secret::load("SECURE_API_KEY").context("the key cannot be read")?;
    let given = given.unwrap_or_else(|| Secret::new(Uuid::new_v4().simple().to_string()));
    ensure!(given.expose().len() >= 32, "the key must have 32 characters at least, all random");
    Ok(Sha256::digest(given.expose()).into())
}
