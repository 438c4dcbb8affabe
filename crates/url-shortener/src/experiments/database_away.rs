//! What does a client see while the database is away, and just after?

use std::time::{Duration, Instant};

use lab::{
    Experiment, Lab, Sabotage, Target,
    fault::{Fault, Proxy},
};
use serde_json::json;
use tokio::{task::JoinSet, time::sleep};

use super::fixture::{Fixture, UNLIMITED, start};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Clients that ask at the same moment while the database is away
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=500))]
    clients: u16,
}

/// Requests have to work again within this time.
const AGAIN: Duration = Duration::from_secs(3);

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "database-away",
        "With the database cut off, hot links still redirect, cold ones get 503 with Retry-After within \
         1 s, nothing hangs; when it is back, requests work again within 3 s",
        &["--clients", "20"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "const TIMEOUT: Duration = Duration::from_millis(700);",
        with: "const TIMEOUT: Duration = Duration::from_secs(5);",
        check: "network black-holed: cold links",
    })
}

/// What the clients got from one kind of request.
#[derive(Default)]
struct Answers {
    as_hoped: usize,
    others: Vec<String>,
    slowest: Duration,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let database = fixture.database().url();
    let proxy = Proxy::to_url(database).await?;
    let serve = fixture.serve().env("DATABASE_URL", proxy.url(database)?);
    let (_child, client) = start(serve.args(&UNLIMITED)).await?;
    let clients = usize::from(params.clients);
    let faults = [("connections cut", Fault::Cut), ("network black-holed", Fault::BlackHole)];
    for (done, (name, fault)) in (0_u64..).zip(faults) {
        lab.progress(done, 2, format!("{name}: {} clients at once", params.clients));
        let hot = client.shorten(&format!("https://example.com/hot/{done}")).await?;
        let mut cold = Vec::new();
        for n in 0..=clients {
            // Made, and never followed: it is in no cache.
            cold.push(client.shorten(&format!("https://example.com/cold/{done}/{n}")).await?);
        }
        client.follow(&hot).await?;

        proxy.set(fault);
        let last = cold.pop().unwrap_or_default();
        let (hot, cold, creates) = tokio::join!(
            ask(&client, clients, 302, move |_| Ask::Follow(hot.clone())),
            ask(&client, clients, 503, move |n| Ask::Follow(cold[n].clone())),
            ask(&client, clients, 503, move |n| Ask::Create(format!("https://example.com/{n}"))),
        );
        proxy.heal();
        let back = Instant::now();
        // A connection attempt that began in the black hole may still hold up the first request.
        let mut first = client.follow(&last).await?.status();
        while first != 302 && back.elapsed() < AGAIN {
            sleep(Duration::from_millis(20)).await;
            first = client.follow(&last).await?.status();
        }
        let back = back.elapsed();

        for (what, answers, status) in [
            ("hot links", hot, "302"),
            ("cold links", cold, "503 with Retry-After"),
            ("creates", creates, "503 with Retry-After"),
        ] {
            let slowest = answers.slowest.as_secs_f64() * 1e3;
            let figure = format!("{name}: slowest answer for {what}");
            lab.figure_with_target(figure, slowest, "ms", Target::AtMost(1_000.0));
            let seen = format!("{} as expected, others: {:?}", answers.as_hoped, answers.others);
            let held = answers.as_hoped == clients;
            let expected = format!("{clients} times {status}, each within 3 s");
            lab.check(format!("{name}: {what}"), expected, seen, held);
        }
        lab.figure(format!("{name}: first redirect afterwards"), back.as_secs_f64() * 1e3, "ms");
        lab.check_eq(format!("{name}: a request within 3 s of its return"), 302, first.as_u16());
    }
    Ok(())
}

enum Ask {
    Follow(String),
    Create(String),
}

/// All clients ask at once. An answer that takes three seconds counts as none: the claim is one second,
/// and the rest is for a machine that is busy with other tests.
async fn ask(client: &Client, clients: usize, hoped: u16, what: impl Fn(usize) -> Ask) -> Answers {
    let mut asking = JoinSet::new();
    for n in 0..clients {
        let (client, what) = (client.clone(), what(n));
        asking.spawn(async move {
            let begun = Instant::now();
            let answer = async {
                match what {
                    Ask::Follow(code) => client.follow(&code).await,
                    Ask::Create(url) => client.create_once(&json!({ "url": url })).await,
                }
            };
            let answer = tokio::time::timeout(Duration::from_secs(3), answer).await;
            let seen = match answer {
                Ok(Ok(response)) => {
                    let status = response.status().as_u16();
                    let retry = response.headers().contains_key("retry-after");
                    if status == 503 && !retry {
                        "503 without Retry-After".to_owned()
                    } else {
                        status.to_string()
                    }
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            (seen, begun.elapsed())
        });
    }
    let mut answers = Answers::default();
    for (seen, took) in asking.join_all().await {
        answers.slowest = answers.slowest.max(took);
        if seen == hoped.to_string() {
            answers.as_hoped += 1;
        } else {
            answers.others.push(seen);
        }
    }
    answers
}
