//! How soon is an expired link gone, even if every request finds it in the cache?

use std::time::Duration;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, Target};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::task::JoinSet;

use super::fixture::Fixture;
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Links, each asked for without a pause until it is gone
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=500))]
    links: u64,
    /// Seconds that each link lives
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "expiry",
        "An expired link is 410 within a second of its time, also when it is hot in the cache",
        &["--links", "8", "--seconds", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/cache.rs",
        replace: "end.saturating_duration_since(now)",
        with: "end.saturating_duration_since(now).max(STALE_FOR)",
        check: "no link redirected a second after its time",
    })
}

/// What a client saw while it asked for one link over and over. The times are seconds after the link's expiry.
struct Seen {
    last_redirect: f64,
    first_gone: f64,
    redirects: u64,
    /// What the link answers when asked once more, a while later.
    afterwards: u16,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let (_child, client) = fixture.start(&[]).await?;
    lab.progress(0, 0, format!("{} links live for {} s", params.links, params.seconds));
    let mut clients = JoinSet::new();
    for n in 0..params.links {
        let client = client.clone();
        clients.spawn(async move { watch(&client, n, params.seconds).await });
    }
    let seen: Vec<Seen> = clients.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;

    // A link that nobody followed while it lived is in no cache. It has to be found expired in the database.
    let cold = json!({ "url": "https://example.com/cold", "expires_in_seconds": 1 });
    let cold = client.code_for(&cold).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let cold_status = client.follow(&cold).await?.status();

    let latest = |value: fn(&Seen) -> f64| seen.iter().map(value).fold(f64::MIN, f64::max);
    let (last_redirect, first_gone) = (latest(|s| s.last_redirect), latest(|s| s.first_gone));
    let earliest = seen.iter().map(|seen| seen.first_gone).fold(f64::MAX, f64::min);
    let hot = seen.iter().map(|seen| seen.redirects).min().unwrap_or(0);
    lab.figure("redirects served per link before it expired, at least", hot as f64, "");
    let milliseconds = |seconds: f64| seconds * 1e3;
    lab.figure_with_target(
        "latest first 410 after its time",
        milliseconds(first_gone),
        "ms",
        Target::AtMost(1_000.0),
    );
    lab.check(
        "no link redirected a second after its time",
        "latest redirect at most 1 s after",
        format!("{:+.0} ms", milliseconds(last_redirect)),
        last_redirect <= 1.0,
    );
    lab.check(
        "no link was gone before its time",
        "earliest 410 after the expiry",
        format!("{:+.0} ms", milliseconds(earliest)),
        earliest >= 0.0,
    );
    let hot_enough = hot >= 10;
    lab.check(
        "every link was hot",
        "10 redirects or more each",
        format!("at least {hot}"),
        hot_enough,
    );
    let stays_gone = seen.iter().filter(|seen| seen.afterwards == 410).count();
    lab.check_eq("links that stay 410", seen.len(), stays_gone);
    lab.check_eq("a link that nobody asked for while it lived", 410, cold_status.as_u16());
    Ok(())
}

async fn watch(client: &Client, n: u64, seconds: u64) -> anyhow::Result<Seen> {
    let link = json!({
        "url": format!("https://example.com/{n}"),
        "expires_in_seconds": seconds,
    });
    let created: Value = client.create(&link).await?.json().await?;
    let code = created["code"].as_str().context("no code")?;
    let expires = created["expires_at"].as_str().context("no expires_at")?;
    let expires = OffsetDateTime::parse(expires, &Rfc3339)?;
    let since_expiry = || (OffsetDateTime::now_utc() - expires).as_seconds_f64();
    let mut seen =
        Seen { last_redirect: f64::MIN, first_gone: f64::MAX, redirects: 0, afterwards: 0 };
    loop {
        let asked = since_expiry();
        match client.follow(code).await?.status().as_u16() {
            // The time before the request: a slow redirect is not held against the service.
            302 => (seen.last_redirect, seen.redirects) = (asked, seen.redirects + 1),
            // The time after the answer: a slow 410 counts as a late one.
            410 => {
                seen.first_gone = since_expiry();
                break;
            }
            other => anyhow::bail!("a link with an expiry answered {other}"),
        }
        anyhow::ensure!(asked < 30.0, "still there 30 s after its time");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    seen.afterwards = client.follow(code).await?.status().as_u16();
    Ok(seen)
}
