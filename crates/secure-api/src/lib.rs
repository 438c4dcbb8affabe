//! "How to secure a backend API?"
//!
//! Invoices of several customers. Nothing can be reached without a check that its handler names; each statement is locked
//! twice to the rows of one customer; and what comes in is parsed into types that cannot hold what is not allowed.
//!
//! In reading order: the naive version ([`whiteboard`]); secrets ([`secret`]) and who asks ([`token`], [`login`]); what
//! surrounds a call ([`frame`]) and who may make it ([`may`]); what comes in and goes out ([`invoice`], [`page`],
//! [`render`], [`attachment`], [`webhook`]); what is kept ([`store`]); and how it speaks HTTP ([`error`], [`api`]).

pub mod whiteboard;
pub mod secret;
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

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::{Context, ensure};
use axum::http::HeaderValue;
use edge::client_address::{ProxyHeader, TrustedProxies, TrustedProxy};
use lab::{Answer, Serve, Service, Serving};
use tokio::sync::Semaphore;
use tokio_rustls::rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use url::Host;
use uuid::Uuid;

use crate::{
    api::Api,
    login::{Limits, Passwords},
    secret::Secret,
    store::Store,
    token::{Role, Tokens},
    webhook::{Webhooks, system_lookup},
};

/// Documents that are made at once.
const DOCUMENTS: usize = 4;

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
    /// A file with the accounts' password; else it is in $SECURE_API_PASSWORD, or a random one that is printed
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// A file with the key that signs tokens, 64 hexadecimal digits; else it is in $SECURE_API_KEY, or random
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// An origin whose pages may read answers, such as https://app.example
    #[arg(long = "allow-origin", value_name = "ORIGIN")]
    origins: Vec<HeaderValue>,
    /// The one receiver of webhooks on this machine that may be called
    #[arg(long, value_name = "ADDRESS:PORT")]
    webhook_allow: Option<SocketAddr>,
    /// A proxy that ends TLS for us, and whose `X-Forwarded-For` tells the client's address
    #[arg(long = "trusted-proxy", value_name = "NETWORK")]
    trusted_proxies: Vec<TrustedProxy>,
    /// A file with our certificate and those above it, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_certificate: Option<PathBuf>,
    /// A file with the certificate's private key, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_certificate")]
    tls_key: Option<PathBuf>,
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
            r#"ada=$(curl -s {url}/login -H 'content-type: application/json' -d "{\"email\":\"ada@acme.example\",\"password\":\"{password}\"}" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
            r#"gil=$(curl -s {url}/login -H 'content-type: application/json' -d "{\"email\":\"gil@globex.example\",\"password\":\"{password}\"}" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
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
    ensure!(
        allowed.is_none_or(|address| address.ip().is_loopback()),
        "--webhook-allow is for a receiver on this machine: name a loopback address"
    );
    let has_tls = options.tls_certificate.is_some() || !options.trusted_proxies.is_empty();
    ensure!(
        has_tls || is_loopback(&serving),
        "without TLS others read all that is sent: give --tls-certificate and --tls-key, or name the proxy that ends TLS \
         with --trusted-proxy"
    );
    let (password, shown) = password(options.password_file.as_deref())?;
    let passwords = Passwords::new()?;
    let store = Store::new(&serving.database().await?)?;
    seed(&store, &passwords.hash(&password)?).await?;
    let api = Api {
        store,
        tokens: Arc::new(Tokens::new(key(options.key_file.as_deref())?)?),
        passwords: Arc::new(passwords),
        limits: options.limits,
        proxies: TrustedProxies::new(options.trusted_proxies, ProxyHeader::XForwardedFor).into(),
        webhooks: Webhooks::new(allowed, system_lookup()),
        documents: Arc::new(Semaphore::new(DOCUMENTS)),
    };
    let (router, serving) = (api::router(api, options.origins), serving.word("password", shown));
    match (options.tls_certificate, options.tls_key) {
        (Some(certificate), Some(key)) => {
            let chain = CertificateDer::pem_file_iter(certificate)?.collect::<Result<_, _>>()?;
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
            let config = config.with_safe_default_protocol_versions()?.with_no_client_auth();
            let config = config.with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
            serving.run_tls(router, config).await
        }
        _ => serving.run(router).await,
    }
}

async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()> {
    ensure!(is_loopback(&serving), "this version can be broken into: it is served on loopback only");
    eprintln!("THIS IS THE CARELESS VERSION: every attack of the chapter works on it. Give it no real data.");
    let database = serving.database().await?;
    let (password, shown) = password(None)?;
    seed(&Store::new(&database)?, &whiteboard::hash(password.expose())).await?;
    let router = whiteboard::router(&database)?;
    serving.word("password", shown).run(router).await
}

fn is_loopback(serving: &Serving) -> bool {
    match serving.url().host() {
        Some(Host::Ipv4(ip)) => ip.is_loopback(),
        Some(Host::Ipv6(ip)) => ip.is_loopback(),
        _ => false,
    }
}

/// The password of the accounts, and how the lines to try spell it: a given one is not printed.
fn password(file: Option<&std::path::Path>) -> anyhow::Result<(Secret, String)> {
    const VARIABLE: &str = "SECURE_API_PASSWORD";
    let given = Secret::load(file, VARIABLE).context("the password cannot be read")?;
    Ok(given.map_or_else(
        || {
            let random = Uuid::new_v4().simple().to_string();
            (Secret::new(&*random), random.clone())
        },
        |given| (given, format!("${VARIABLE}")),
    ))
}

async fn seed(store: &Store, hash: &str) -> anyhow::Result<()> {
    for (email, customer, role) in ACCOUNTS {
        store.seed(email, customer, role, hash).await?;
    }
    Ok(())
}

/// The key that signs tokens.
fn key(file: Option<&std::path::Path>) -> anyhow::Result<[u8; 32]> {
    let mut seed = [0; 32];
    let Some(given) = Secret::load(file, "SECURE_API_KEY").context("the key cannot be read")? else {
        getrandom::fill(&mut seed)?;
        return Ok(seed);
    };
    // Errors do not show what is wrong with it.
    let digits = given.expose().as_bytes();
    ensure!(digits.len() == 64 && digits.is_ascii(), "the key must be 64 hexadecimal digits");
    for (byte, pair) in seed.iter_mut().zip(digits.chunks(2)) {
        let digits = std::str::from_utf8(pair).context("the key must be hexadecimal")?;
        *byte = u8::from_str_radix(digits, 16).context("the key must be hexadecimal")?;
    }
    Ok(seed)
}
