//! One handler computes for some milliseconds. What does everybody else notice?

use std::{sync::Arc, time::Instant};

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Clients, Fixture, Stall, percentile, product, stall};
use crate::price::quote;

/// Threads that answer requests, on whatever machine. With more it takes as many prices at once, and chance decides which
/// requests stand behind one.
const WORKERS: &str = "1";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Milliseconds of computing for each price
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(10..=10_000))]
    price_ms: u32,
    /// Prices that are asked for at the same moment
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(4..=200))]
    prices: u32,
    /// Seconds for which a client asks for the route that does nothing
    #[arg(long, default_value_t = 2.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "blocking",
        "A handler that computes holds its thread, and if that is the only one, nobody is answered meanwhile, not even on a \
         route that does nothing. On threads of its own it harms nobody; and the watchdog's line in the log names it",
        &["--price-ms", "200", "--prices", "4", "--seconds", "0.6"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/price.rs",
        replace: "Threads::Inline => Ok(quote(cents, id, rules)),",
        with: "Threads::Inline | Threads::Pool => Ok(quote(cents, id, rules)),",
        check: "pool: median wait of the route that does nothing ÷ time of the first price",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let rules = rules_for(params.price_ms);
    lab.figure("rules for each price", rules.into(), "");
    let mut rows = Vec::new();
    for (n, way) in ["inline", "blocking", "pool"].into_iter().enumerate() {
        lab.progress(n as u64, 3, way);
        let (seen, log) = once(&fixture, way, (params.prices, params.seconds), rules).await?;
        let [p50, p99, longest] = [50, 99, 100].map(|it| percentile(&seen.trivial, it));
        let milliseconds = [p50, p99, longest, seen.price].map(|it| format!("{it:.1}"));
        rows.push([vec![way.to_owned()], milliseconds.to_vec()].concat());
        lab.figure(format!("{way}: p99 of the route that does nothing"), p99, "ms");
        lab.figure(format!("{way}: longest wait of the route that does nothing"), longest, "ms");
        let part = seen.wait / seen.price;
        let check =
            format!("{way}: median wait of the route that does nothing ÷ time of the first price");
        if way == "inline" {
            lab.check(check, "0.25 or more", format!("{part:.2}"), part >= 0.25);
            let named = log.contains("GET /products/{id}/price held its thread");
            lab.check_eq("inline: the log names the handler that holds its thread", true, named);
        } else if way == "pool" {
            lab.check(check, "0.25 or less", format!("{part:.2}"), part <= 0.25);
        }
    }
    let columns = ["prices are computed", "p50 (ms)", "p99 (ms)", "longest (ms)", "a price (ms)"];
    lab.table("A client of /healthz, a hundred times a second, meanwhile", &columns, rows);
    Ok(())
}

/// So many rules that a price takes this long here.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is bounded")]
pub fn rules_for(milliseconds: u32) -> u32 {
    const SOME: u32 = 200_000;
    // The best of some: in the others, another process had the core.
    let times = (0..10).map(|_| {
        let begun = Instant::now();
        std::hint::black_box(quote(1_000, 7, std::hint::black_box(SOME)));
        begun.elapsed()
    });
    let each = times.min().unwrap_or_default().as_secs_f64() / f64::from(SOME);
    let rules = f64::from(milliseconds) / 1e3 / each;
    rules.clamp(1_000.0, 1e9) as u32
}

/// The shop with this way of computing prices, asked for so many prices at once, while a client asks for so many seconds; and
/// its log.
pub async fn once(
    fixture: &Fixture,
    way: &str,
    (prices, seconds): (u32, f64),
    rules: u32,
) -> anyhow::Result<(Stall, String)> {
    let rules = rules.to_string();
    // A busy machine may take long over the last of them.
    let words = ["--price", way, "--price-rules", &rules, "--timeout-ms", "600000"];
    let shop = fixture.serve().args(&words).args(&["--in-flight", "1000"]);
    let shop = shop.env("TOKIO_WORKER_THREADS", WORKERS).env("RUST_LOG", "warn");
    let shop = shop.keep_lines(1_000).start().await?;
    let clients = Arc::new(Clients::of(shop.address()));
    // The connections of all are open, and the database's too.
    let warm = (0..prices + 8).map(|n| {
        let clients = &clients;
        async move { clients.must_get(&product(n.into())).await }
    });
    try_join_all(warm).await?;
    let prices: Vec<_> = (0..prices).map(|n| format!("{}/price", product(n.into()))).collect();
    let seen = stall(&clients, &prices, seconds).await?;
    Ok((seen, shop.log()))
}
