//! One handler computes for some milliseconds. What does everybody else notice?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage, load::median};

use super::fixture::{Clients, Fixture, product};
use crate::price::quote;

/// Threads that answer requests, on whatever machine.
const WORKERS: &str = "2";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Milliseconds of computing for each price
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    price_ms: u32,
    /// Prices that are asked for at the same moment
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(8..=200))]
    prices: u32,
    /// Rounds of all three ways
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "blocking",
        "A handler that computes holds its thread, and with two of them nobody is answered, not even on a route that does \
         nothing. On threads of its own it harms nobody; and the watchdog's line in the log names it",
        &["--price-ms", "30", "--prices", "12", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/price.rs",
        replace: "Threads::Inline => Ok(quote(cents, id, rules)),",
        with: "Threads::Inline | Threads::Pool => Ok(quote(cents, id, rules)),",
        check: "pool: answers of the route that does nothing, for each price, 5 or more",
    })
}

/// What a client of `/healthz` has seen while prices were computed.
struct Seen {
    /// In milliseconds.
    waits: Vec<f64>,
    log: String,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let rules = rules_for(params.price_ms);
    lab.figure("rules for each price", rules.into(), "");
    let mut rows = Vec::new();
    for (n, way) in ["inline", "blocking", "pool"].into_iter().enumerate() {
        lab.progress(n as u64, 3, way);
        let mut seen = Seen { waits: Vec::new(), log: String::new() };
        for _ in 0..params.rounds {
            let once = once(&fixture, way, params.prices, rules).await?;
            seen.waits.extend(once.waits);
            seen.log += &once.log;
        }
        let mut waits = seen.waits;
        waits.sort_by(f64::total_cmp);
        let longest = waits.last().copied().context("no answer at all")?;
        let p99 = waits[(waits.len() - 1) * 99 / 100];
        let each = waits.len() as f64 / f64::from(params.prices * params.rounds);
        rows.push(vec![
            way.to_owned(),
            waits.len().to_string(),
            format!("{:.2}", median(waits.clone())),
            format!("{p99:.2}"),
            format!("{longest:.1}"),
        ]);
        lab.figure(format!("{way}: p99 of the route that does nothing"), p99, "ms");
        lab.figure(format!("{way}: longest wait of the route that does nothing"), longest, "ms");
        if way == "inline" {
            let least = f64::from(params.price_ms);
            let check =
                "inline: longest wait of the route that does nothing, that of a price or more";
            lab.check(
                check,
                format!("{least:.0} ms or more"),
                format!("{longest:.1} ms"),
                longest >= least,
            );
            let named = seen.log.contains("GET /products/{id}/price held its thread");
            lab.check_eq("inline: the log names the handler that holds its thread", true, named);
        } else if way == "pool" {
            let check = "pool: answers of the route that does nothing, for each price, 5 or more";
            lab.check(check, "5 or more", format!("{each:.1}"), each >= 5.0);
        }
    }
    let columns =
        ["prices are computed", "answers of /healthz", "p50 (ms)", "p99 (ms)", "longest (ms)"];
    lab.table("A client that asks for /healthz all the time, meanwhile", &columns, rows);
    Ok(())
}

/// So many rules that a price takes this long here.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded")]
fn rules_for(milliseconds: u32) -> u32 {
    const SOME: u32 = 200_000;
    let begun = Instant::now();
    std::hint::black_box(quote(1_000, 7, std::hint::black_box(SOME)));
    let each = begun.elapsed().as_secs_f64() / f64::from(SOME);
    let rules = f64::from(milliseconds) / 1e3 / each;
    rules.clamp(1_000.0, 1e9) as u32
}

async fn once(fixture: &Fixture, way: &str, prices: u32, rules: u32) -> anyhow::Result<Seen> {
    let rules = rules.to_string();
    let words = ["--price", way, "--price-rules", &rules, "--in-flight", "1000"];
    // A busy machine may take long over the last of them.
    let words = [&words[..], &["--timeout-ms", "600000"]].concat();
    let shop = fixture.serve().args(&words).env("TOKIO_WORKER_THREADS", WORKERS);
    let shop = shop.env("RUST_LOG", "warn").keep_lines(1_000).start().await?;
    let clients = Clients::of(shop.address());
    // The connections of all are open, and the database's too.
    try_join_all((0..prices).map(|n| {
        let path = product(n.into());
        let clients = &clients;
        async move { clients.must_get(&path).await }
    }))
    .await?;
    let over = Arc::new(AtomicBool::new(false));
    let trivial = tokio::spawn({
        let (over, clients) = (Arc::clone(&over), Clients::of(shop.address()));
        async move {
            let mut waits = Vec::new();
            while !over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                clients.must_get("/healthz").await?;
                waits.push(begun.elapsed().as_secs_f64() * 1e3);
                // It need not keep a thread busy by itself.
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            anyhow::Ok(waits)
        }
    });
    let asked = try_join_all((0..prices).map(|n| {
        let path = format!("{}/price", product(n.into()));
        let clients = &clients;
        async move { clients.must_get(&path).await }
    }));
    let asked = asked.await;
    over.store(true, Ordering::Relaxed);
    let waits = trivial.await.context("the client panicked")??;
    asked?;
    Ok(Seen { waits, log: shop.log() })
}
