//! How many get through at the edge of a window?

use std::time::{Duration, Instant};

use lab::{Experiment, Lab, Sabotage, child::Child, load::http::Connection};
use tokio::{task::JoinSet, time::sleep_until};

use super::fixture::{Fixture, request};
use crate::{
    algorithm::Algorithm,
    quota::{Micros, Quota},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests in a window
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    limit: u32,
    /// How long a window is, in milliseconds
    #[arg(long, default_value_t = 2_500, value_parser = clap::value_parser!(u64).range(500..=60_000))]
    window: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "boundary-burst",
        "At the edge of a fixed window a client gets nearly twice the limit in a moment; with the other four never \
         more than each one's stated bound, which for all but the log is also twice the limit over a whole window",
        &["--limit", "15", "--window", "1800"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/window.rs",
        replace: "c.opened + c.window, 0, c.current",
        with: "c.opened + c.window, 0, 0",
        check: "sliding-window: spans of time in which more than its bound was let through",
    })
}

const TITLE: &str =
    "Requests let through, for a client that saves its quota for the edge of the window";
const AXES: (&str, &str) = ("time, in windows since the first request", "let through in all");

/// A request that was let through. The server decided at some moment between these two.
#[derive(Clone, Copy)]
struct Passed {
    sent: Duration,
    answered: Duration,
}

/// What one client got.
struct Story {
    passed: Vec<Passed>,
    /// From the first request just before the edge to the last answer just after it.
    moment: (Duration, Duration),
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let quota = Quota::new(params.limit, Duration::from_millis(params.window))?;
    let mut stories = JoinSet::new();
    for (n, algorithm) in Algorithm::ALL.into_iter().enumerate() {
        let (limit, window) = (params.limit.to_string(), format!("{}ms", params.window));
        let serve = fixture.in_redis().args(&["--algorithm", algorithm.name()]);
        let serve = serve.args(&["--limit", &limit, "--window", &window]);
        let child = serve.args(&["--trusted-proxy", "127.0.0.1"]).start().await?;
        stories.spawn(async move { anyhow::Ok((n, patiently(&child, &quota).await?)) });
    }
    lab.progress(0, 1, "five clients wait for the edge of their windows");
    let mut stories: Vec<_> =
        stories.join_all().await.into_iter().collect::<anyhow::Result<_>>()?;
    stories.sort_by_key(|(n, _)| *n);

    let (mut rows, mut moments) = (Vec::new(), Vec::new());
    for (algorithm, (_, story)) in Algorithm::ALL.into_iter().zip(stories) {
        let name = algorithm.name();
        for (n, passed) in (1..).zip(&story.passed) {
            let at = passed.answered.as_secs_f64() * 1e3 / params.window as f64;
            lab.point(TITLE, AXES, name, (at, f64::from(n)));
        }
        let span = micros(story.moment.1.saturating_sub(story.moment.0));
        let moment = inside(&story.passed, story.moment);
        let bound = algorithm.bound(&quota, span);
        lab.check(
            format!("{name}: let through within {} ms around the edge", span / 1_000),
            format!("at most its bound, {bound}"),
            moment,
            moment <= bound,
        );
        // This looks at every span from one request that passed to another. The server's own span lies within the one
        // that we saw, so the bound for ours is not stricter than the one that the server has to keep.
        let (over, most) = spans(algorithm, &quota, &story.passed);
        let whole = algorithm.bound(&quota, quota.window());
        lab.check_eq(
            format!("{name}: spans of time in which more than its bound was let through"),
            0,
            over,
        );
        rows.push(
            [
                name.to_owned(),
                moment.to_string(),
                bound.to_string(),
                most.to_string(),
                whole.to_string(),
            ]
            .to_vec(),
        );
        moments.push(moment);
    }
    let columns = ["algorithm", "around the edge", "its bound", "most in any window", "its bound "];
    lab.table(format!("Let through, limit {}", params.limit), &columns, rows);
    let (fixed, others) = (moments[0], moments[1..].iter().max().copied().unwrap_or_default());
    let limit = f64::from(params.limit);
    lab.figure("a fixed window at its edge ÷ the limit", fixed as f64 / limit, "");
    lab.figure("the most of the others ÷ the limit", others as f64 / limit, "");
    lab.check(
        "the fixed window lets through nearly twice the limit in that moment",
        format!("more than {:.0}", limit * 1.8),
        fixed,
        fixed as f64 > limit * 1.8,
    );
    lab.check("and more than any other", format!("more than {others}"), fixed, fixed > others);
    Ok(())
}

/// If this machine pauses at the wrong moment, that spoils the run, and not the claim. Then another client tries, and
/// begins earlier before the edge.
async fn patiently(child: &Child, quota: &Quota) -> anyhow::Result<Story> {
    for attempt in 0..8 {
        let lead = (0.12 * 1.6_f64.powi(attempt)).min(0.5);
        if let Some(story) = tell(child, quota, attempt, lead).await? {
            return Ok(story);
        }
    }
    anyhow::bail!("this machine is too busy to send its requests at the right moment")
}

async fn tell(
    child: &Child,
    quota: &Quota,
    attempt: i32,
    lead: f64,
) -> anyhow::Result<Option<Story>> {
    let window = Duration::from_micros(quota.window());
    let mut connection = Connection::open(child.address()).await?;
    // Another client for each attempt.
    let address = format!("203.0.113.{}", attempt + 1);
    let request = request(child, &[("X-Forwarded-For", &address)]);
    let (begun, mut passed) = (Instant::now(), Vec::new());
    let mut ask = async |passed: &mut Vec<Passed>| {
        let sent = begun.elapsed();
        if connection.send(&request).await? == 200 {
            passed.push(Passed { sent, answered: begun.elapsed() });
        }
        anyhow::Ok(())
    };
    // Opens the window, which then ends between these two moments.
    ask(&mut passed).await?;
    let edge = (window, begun.elapsed() + window);

    let before = edge.0.mul_f64(1.0 - lead);
    sleep_until((begun + before).into()).await;
    for _ in 0..quota.limit() {
        ask(&mut passed).await?;
    }
    let in_time = begun.elapsed() < edge.0;
    sleep_until((begun + edge.1 + Duration::from_millis(5)).into()).await;
    for _ in 0..quota.limit() {
        ask(&mut passed).await?;
    }
    let after = begun.elapsed();
    // Then it goes on, as fast as quota comes back, until a window after the edge.
    while begun.elapsed() < edge.1 + window {
        ask(&mut passed).await?;
        tokio::time::sleep(window / 200).await;
    }
    // Within these times the bounds of the other algorithms stay below what a fixed window lets through.
    let good = in_time && after < edge.1 + window.mul_f64(0.35);
    Ok(good.then_some(Story { passed, moment: (before, after) }))
}

fn micros(duration: Duration) -> Micros {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

fn inside(passed: &[Passed], (from, to): (Duration, Duration)) -> u64 {
    passed.iter().filter(|it| it.sent >= from && it.answered <= to).count() as u64
}

/// How many spans were over their bound, and the most that passed in a span as long as the window.
fn spans(algorithm: Algorithm, quota: &Quota, passed: &[Passed]) -> (u64, u64) {
    let (mut over, mut most) = (0, 0);
    for (first, begin) in passed.iter().enumerate() {
        for (count, end) in (1..).zip(&passed[first..]) {
            let span = micros(end.answered.saturating_sub(begin.sent)) + 1;
            over += u64::from(count > algorithm.bound(quota, span));
            if span <= quota.window() {
                most = most.max(count);
            }
        }
    }
    (over, most)
}
