//! What does a client see while Redis is away, and just after?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use lab::{
    Experiment, Lab, Sabotage, Target,
    child::Child,
    fault::{Fault, Proxy},
    harness::{eventually, within},
    load::{self, http::Pool},
};
use reqwest::header::RETRY_AFTER;
use tokio::{task::JoinSet, time::sleep};

use super::fixture::{Fixture, start};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests at the same moment while Redis is away
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(5..=500))]
    requests: u64,
    /// How long Redis may take to answer, in milliseconds
    #[arg(long, default_value_t = 500, value_parser = clap::value_parser!(u64).range(50..=2_000))]
    timeout: u64,
    /// Requests a second while the network swallows everything and afterwards
    #[arg(long, default_value_t = 5_000.0)]
    rate: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "store-away",
        "With Redis cut off, fail-open goes on with the quota counted in the process, fail-closed answers 503 with \
         Retry-After, both within the time-out; soon after it is back, also under load, requests are decided by what \
         Redis knew",
        &["--requests", "20", "--timeout", "1500", "--rate", "500"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/limiter.rs",
        replace: ".map(|it| it.decide(key, cost))",
        with: ".map(|_| Decision::new(true))",
        check: "fail-open, cut: let through by the process alone",
    })
    .sabotage(Sabotage {
        file: "src/connection.rs",
        replace: "const PAUSE: Duration = Duration::from_millis(100);",
        with: "const PAUSE: Duration = Duration::from_secs(14);",
        check: "under load: the network is whole again after a black hole, and Redis decides nine of ten requests",
    })
}

/// Requests that Redis has counted before it goes.
const BEFORE: u64 = 3;
/// On a busy machine. How long it takes is a figure.
const COMES_BACK: Duration = Duration::from_secs(10);

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // Half of what comes at once, so that the local limiter has something to refuse.
    let limit = params.requests / 2 + BEFORE;
    let faults = [("cut", Fault::Cut), ("black-holed", Fault::BlackHole)];
    let cases =
        ["fail-open", "fail-closed"].into_iter().flat_map(|mode| faults.map(|it| (mode, it)));
    for (done, (mode, (name, fault))) in (0..).zip(cases) {
        lab.progress(done, 4, format!("{mode}, network {name}"));
        let case = Case { mode, fault, limit, params: &params };
        let (child, story) = case.calmly(&lab).await?;
        let what = format!("{mode}, {name}");
        case.judge(&lab, &what, &story);
        told(&lab, &child, &what, mode, (params.requests, story.away));
    }
    lab.progress(4, 5, "a black hole under load");
    under_load(&lab, &params).await
}

/// The network swallows everything for a second and a half, while requests go on coming. When it is back, does the
/// process connect again?
async fn under_load(lab: &Lab, params: &Params) -> anyhow::Result<()> {
    let fixture = Fixture::of(lab).await?;
    let url = fixture.keys.url();
    let proxy = Proxy::to_url(url).await?;
    let serve = fixture.in_redis_within("500ms").env("REDIS_URL", proxy.url(url)?);
    let (child, client) = start(serve.args(&["--limit", "1000000"])).await?;
    let pool = Arc::new(Pool::of(child.address()));
    let hello = move |_| {
        let pool = Arc::clone(&pool);
        async move { pool.get("/api/hello").await.map(|_| ()) }
    };
    // It ends with the wait for Redis.
    let load = load::open(params.rate, COMES_BACK * 3, 8_192, hello);
    let story = async {
        sleep(Duration::from_millis(500)).await;
        proxy.set(Fault::BlackHole);
        sleep(Duration::from_millis(1_500)).await;
        proxy.heal();
        let healed = Instant::now();
        let back = within(COMES_BACK, "Redis decides", async || {
            let (asked, away) = counts(&client).await?;
            sleep(Duration::from_millis(250)).await;
            let (asked_then, away_then) = counts(&client).await?;
            let (asked, away) = (asked_then - asked, away_then - away);
            Ok((asked >= 20 && away * 10 <= asked).then(|| healed.elapsed()))
        });
        back.await.ok()
    };
    let back = tokio::select! {
        back = story => back,
        outcome = load => anyhow::bail!("the load ended first: {outcome:?}"),
    };
    let figure = "under load: from when the network is whole until Redis decides";
    let millis = back.map_or(f64::INFINITY, millis);
    lab.figure_with_target(figure, millis, "ms", Target::AtMost(2_000.0));
    lab.check(
        "under load: the network is whole again after a black hole, and Redis decides nine of ten requests",
        format!("within {} s", COMES_BACK.as_secs()),
        if back.is_some() { "it does" } else { "it does not" },
        back.is_some(),
    );
    Ok(())
}

/// How many requests there were, and how many of them Redis did not decide.
async fn counts(client: &Client) -> anyhow::Result<(u64, u64)> {
    let total = |decision: &str| format!("rate_limiter_requests_total{{decision=\"{decision}\"}}");
    let asked = client.metric(&total("allowed")).await? + client.metric(&total("refused")).await?;
    Ok((asked, client.metric(r#"rate_limiter_store_away_total{mode="fail-open"}"#).await?))
}

/// How long until the process has a connection to Redis again.
async fn back(client: &Client) -> anyhow::Result<Duration> {
    let begun = Instant::now();
    eventually("Redis is there again", async || {
        let ready = client.get("readyz").await?;
        let there = ready.status() == 200 && ready.text().await?.contains("there");
        Ok(there.then_some(()))
    })
    .await?;
    Ok(begun.elapsed())
}

/// One fault in one mode.
struct Case<'a> {
    mode: &'static str,
    fault: Fault,
    limit: u64,
    params: &'a Params,
}

/// What the client saw.
struct Story {
    before: Answers,
    during: Answers,
    /// How long after the network was whole Redis was there again.
    back: Duration,
    /// The next request when it is back.
    next: Answers,
    after: Answers,
    /// Requests that Redis did not decide, by the metric.
    away: u64,
}

impl Case<'_> {
    /// Starts a limiter and tells the story. A pause of this machine may look like a Redis that is away when we have
    /// cut nothing. Then it begins again, in another part of Redis.
    async fn calmly(&self, lab: &Lab) -> anyhow::Result<(Child, Story)> {
        let (timeout, limit) = (format!("{}ms", self.params.timeout), self.limit.to_string());
        for _ in 0..5 {
            let fixture = Fixture::of(lab).await?;
            let url = fixture.keys.url();
            let proxy = Proxy::to_url(url).await?;
            let serve = fixture.in_redis_within(&timeout).env("REDIS_URL", proxy.url(url)?);
            let serve = serve.args(&["--when-away", self.mode, "--limit", &limit]);
            let (child, client) = start(serve.args(&["--window", "1d"])).await?;
            if let Some(story) = self.tell(&client, &proxy).await? {
                return Ok((child, story));
            }
        }
        anyhow::bail!("this machine is too busy to tell a Redis that is away from a slow one")
    }

    async fn tell(&self, client: &Client, proxy: &Proxy) -> anyhow::Result<Option<Story>> {
        let metric = format!("rate_limiter_store_away_total{{mode=\"{}\"}}", self.mode);
        let before = ask(client, BEFORE).await?;
        if client.metric(&metric).await? > 0 {
            return Ok(None);
        }
        proxy.set(self.fault);
        let during = ask(client, self.params.requests).await?;
        proxy.heal();
        let back = back(client).await?;
        let next = ask(client, 1).await?;
        let after = ask(client, self.limit).await?;
        let away = client.metric(&metric).await?;
        // Only a request that waited for a whole time-out has met a pause of this machine. One that was decided at once
        // without Redis, although Redis was there, has met a fault of ours, and must be reported.
        let paused = next.slowest.max(after.slowest) >= Duration::from_millis(self.params.timeout);
        let spoilt = paused && away > self.params.requests;
        Ok((!spoilt).then_some(Story { before, during, back, next, after, away }))
    }

    fn judge(&self, lab: &Lab, what: &str, story: &Story) {
        let (limit, requests) = (self.limit, self.params.requests);
        let Story { before, during, next, after, .. } = story;
        lab.check_eq(format!("{what}: let through before"), BEFORE, before.count(200));
        if self.mode == "fail-open" {
            let expected = limit.min(requests);
            let check = format!("{what}: let through by the process alone");
            lab.check_eq(check, expected, during.count(200));
            let check = format!("{what}: refused by the process alone");
            lab.check_eq(check, requests - expected, during.count(429));
        } else {
            lab.check_eq(format!("{what}: answered 503"), requests, during.count(503));
            let check = format!("{what}: of these with Retry-After");
            lab.check_eq(check, requests, during.retry_after);
        }
        let target = Target::AtMost(self.params.timeout as f64 + 250.0);
        let figure = format!("{what}: slowest answer");
        lab.figure_with_target(figure, millis(during.slowest), "ms", target);
        let figure = format!("{what}: from when the network is whole until Redis decides");
        lab.figure_with_target(figure, millis(story.back), "ms", Target::AtMost(250.0));
        // A black hole hands on what it has swallowed, so Redis may count requests that it never answered.
        let swallowed = if self.fault == Fault::BlackHole { requests } else { 0 };
        let next = (next.count(200), next.count(429));
        let quota = "the next request when it is back is let through, if Redis has quota left";
        lab.check(
            format!("{what}: {quota}"),
            if swallowed > 0 { "200 or 429" } else { "200" },
            format!("{} times 200, {} times 429", next.0, next.1),
            next.0 == 1 || (swallowed > 0 && next.1 == 1),
        );
        let all = before.count(200) + next.0 + after.count(200);
        let least = limit.saturating_sub(swallowed).max(BEFORE);
        lab.check(
            format!("{what}: let through by Redis, of its one quota"),
            format!("from {least} to {limit}"),
            all,
            all <= limit && all >= least,
        );
    }
}

/// The metric counts every request that Redis did not decide, and the log has a line without any header.
fn told(lab: &Lab, child: &Child, what: &str, mode: &str, (requests, away): (u64, u64)) {
    lab.check_eq(
        format!("{what}: the metric counts what Redis did not decide, and nothing afterwards"),
        requests,
        away,
    );
    let log = child.log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("the store is")).collect();
    let told = lines.iter().any(|line| line.contains("away") && line.contains(mode))
        && lines.iter().any(|line| line.contains("back"));
    let silent = !log.contains("203.0.113.9");
    lab.check(
        format!("{what}: the log says that it went and came back, and names no client"),
        "both, and no address",
        format!("{} lines, address {}", lines.len(), if silent { "absent" } else { "present" }),
        told && silent,
    );
}

/// The answers to requests that were sent at the same moment.
#[derive(Default)]
struct Answers {
    statuses: Vec<u16>,
    /// How many said when to come back.
    retry_after: u64,
    slowest: Duration,
}

impl Answers {
    fn count(&self, status: u16) -> u64 {
        self.statuses.iter().filter(|&&seen| seen == status).count() as u64
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// An answer that does not come has no status. How long each took is a figure.
async fn ask(client: &Client, requests: u64) -> anyhow::Result<Answers> {
    let client = client.forwarded_for("203.0.113.9");
    let mut asking = JoinSet::new();
    for _ in 0..requests {
        let client = client.clone();
        asking.spawn(async move {
            let begun = Instant::now();
            let answer = client.hello().await.ok();
            let seen =
                answer.map(|it| (it.status().as_u16(), it.headers().contains_key(RETRY_AFTER)));
            (seen.unwrap_or_default(), begun.elapsed())
        });
    }
    let mut answers = Answers::default();
    for ((status, retry_after), took) in asking.join_all().await {
        answers.statuses.push(status);
        answers.retry_after += u64::from(retry_after);
        answers.slowest = answers.slowest.max(took);
    }
    Ok(answers)
}
