//! "Describe JWT and its role in authentication."
//!
//! Whoever logs in gets a signed access token of fifteen minutes, which every service verifies on its own, and a
//! refresh token, which is used once and shown to us only. Keys rotate through a published set; a refresh token that
//! is used twice ends its whole family; passwords are hashed by Argon2id, for unknown addresses too.
//!
//! In reading order: what comes in ([`email`], [`password`]), what a token says and who believes it ([`claims`],
//! [`jwks`], [`keyring`], [`verifier`], [`deny`], [`bearer`]), who signs ([`schedule`], [`issuer`]), how one stays logged in
//! ([`refresh`]) and how guessing is made slow ([`throttle`]), where it is kept ([`store`]), how it
//! fits together ([`sessions`], [`housekeeping`], [`service`]), and how it speaks HTTP ([`error`], [`body`], [`api`]).

pub mod email;
pub mod password;
pub mod claims;
pub mod jwks;
pub mod keyring;
pub mod verifier;
pub mod deny;
pub mod bearer;
pub mod schedule;
pub mod issuer;
pub mod refresh;
pub mod throttle;
pub mod store;
pub mod sessions;
pub mod housekeeping;
pub mod service;
pub mod error;
pub mod body;
pub mod api;
pub mod cases;
pub mod experiments;

use std::time::Duration;

use lab::{Answer, Serve, Service, Serving};
use url::Url;

use crate::{
    deny::DenyList,
    password::{Cost, OWASP},
    schedule::Schedule,
    service::{App, Config, Guarded},
    throttle::Limits,
};

pub use store::MIGRATIONS;

/// What `serve` understands.
#[derive(clap::Args, Clone, Debug)]
struct Options {
    /// Who makes the tokens: the claim `iss`
    #[arg(long, default_value = "https://auth.example")]
    issuer: String,
    /// Which service they are for: the claim `aud`
    #[arg(long, default_value = "https://api.example")]
    audience: String,
    /// Serves `GET /me` only, by the key set at this address: no database, no secrets
    #[arg(long, value_name = "URL")]
    jwks: Option<Url>,
    /// Asks Redis with each request whether its token was taken back
    #[arg(long)]
    deny_list: bool,
    /// What its keys in Redis begin with
    #[arg(long, default_value = "worked-answers:jwt-auth:", value_name = "PREFIX")]
    redis_prefix: String,
    /// Seconds that an access token lives
    #[arg(long, default_value_t = 900, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    access_seconds: u64,
    /// Seconds by which clocks may differ
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(0..=300))]
    leeway_seconds: u64,
    /// Seconds that a refresh token lives if it is not used
    #[arg(long, default_value_t = 2_592_000.0, value_parser = some_seconds)]
    refresh_seconds: f64,
    /// Seconds within which a refresh token may be used again
    #[arg(long, default_value_t = 10.0, value_parser = some_seconds)]
    grace_seconds: f64,
    /// Seconds that a key signs, before the next one does
    #[arg(long, default_value_t = 2_592_000.0, value_parser = some_seconds)]
    key_seconds: f64,
    /// Seconds that a key set may be used before it is fetched again
    #[arg(long, default_value_t = 300.0, value_parser = some_seconds)]
    jwks_seconds: f64,
    /// Memory for Argon2id, in KiB
    #[arg(long, default_value_t = OWASP.memory_kib)]
    argon2_memory: u32,
    /// Passes of Argon2id over it
    #[arg(long, default_value_t = OWASP.passes)]
    argon2_passes: u32,
    /// Failed logins of one account before each further one has to be waited for
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(i32).range(2..))]
    failures_per_account: i32,
    /// Failed logins of one client, over all accounts
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(i32).range(2..))]
    failures_per_client: i32,
}

/// A time of a tenth of a second to ten years.
fn some_seconds(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|error| format!("{error}"))?;
    // NaN is in no range.
    let allowed = (0.1..=315_360_000.0).contains(&seconds);
    if allowed { Ok(seconds) } else { Err("is not between 0.1 and 315360000".to_owned()) }
}

impl Options {
    fn config(&self) -> anyhow::Result<Config> {
        let schedule = Schedule {
            key_life: Duration::from_secs_f64(self.key_seconds),
            key_set_max_age: Duration::from_secs_f64(self.jwks_seconds),
            token_life: Duration::from_secs(self.access_seconds),
            leeway: Duration::from_secs(self.leeway_seconds),
        };
        anyhow::ensure!(
            schedule.publish_ahead() < schedule.key_life,
            "--key-seconds must be more than three times --jwks-seconds: a key is published so long before it signs"
        );
        Ok(Config {
            issuer: self.issuer.clone(),
            audience: self.audience.clone(),
            schedule,
            refresh_life: Duration::from_secs_f64(self.refresh_seconds),
            grace: Duration::from_secs_f64(self.grace_seconds),
            cost: Cost { memory_kib: self.argon2_memory, passes: self.argon2_passes },
            limits: Limits {
                per_account: self.failures_per_account,
                per_client: self.failures_per_client,
            },
        })
    }
}

/// This answer, for the command line, the guide and the tests.
pub fn answer() -> Answer {
    Answer {
        name: "jwt-auth",
        question: "Describe JWT and its role in authentication",
        folder: env!("CARGO_MANIFEST_DIR"),
        needs: &[Service::Postgres],
        migrations: Some(&MIGRATIONS),
        try_it: &[
            "email=ann-$(date +%s)@example.com",
            r#"curl -i {url}/register -H 'content-type: application/json' -d "{\"email\":\"$email\",\"password\":\"correct horse battery\"}""#,
            r#"token=$(curl -s {url}/login -H 'content-type: application/json' -d "{\"email\":\"$email\",\"password\":\"correct horse battery\"}" | sed 's/.*"access_token":"\([^"]*\)".*/\1/')"#,
            r#"curl -i {url}/me -H "authorization: Bearer $token""#,
            "curl -s {url}/.well-known/jwks.json",
        ],
        serve: Serve::new(serve),
        suite: cases::suite(),
        experiments: experiments::all(),
    }
}

async fn serve(options: Options, serving: Serving) -> anyhow::Result<()> {
    let config = options.config()?;
    let deny = if options.deny_list {
        let redis = serving.server(Service::Redis).await?;
        Some(DenyList::new(&redis, &options.redis_prefix)?)
    } else {
        None
    };
    if let Some(key_set) = options.jwks {
        let guarded = Guarded::start(key_set, deny, &config)?;
        serving.run(api::guarded_router(guarded.verifier())).await?;
        guarded.stop().await;
    } else {
        let app = App::start(&serving.database().await?, deny, &config)?;
        serving.run(api::router(app.service())).await?;
        app.stop().await;
    }
    Ok(())
}
