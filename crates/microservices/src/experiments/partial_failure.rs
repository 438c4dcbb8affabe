//! One service says nothing any more. What becomes of the shop?

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use conform::target::within;
use lab::{Experiment, Lab, Sabotage, fault::Fault, load::median, serve::here};
use serde_json::Value;
use tokio::time::sleep;

use super::call_cost::together;
use super::compare::otlp::Collector;
use super::fixture::{Customer, Fixture, Services, Setup};
use super::load::{Load, Seen, share};
use crate::module::Module::{Gateway, Recommendations};

/// A second for pages, and for orders that are looked at.
const PAGES: f64 = 15.0;
const ORDERS: f64 = 8.0;
/// Requests that the gateway works on at once. Others wait.
const IN_FLIGHT: [&str; 2] = ["--in-flight", "12"];
/// Before the service falls silent.
const BEFORE: Duration = Duration::from_millis(500);
/// Of customers, at least.
const PATIENCE: Duration = Duration::from_millis(2_500);
/// In milliseconds: for a request, for a call, and for a call whose answer the page can do without. The first two are long,
/// so that a busy machine does not fail for another reason.
const WITH: [&str; 3] = ["20000", "5000", "300"];
/// Slow, but not slow enough to be given up: there and back it is less than half of that.
const SLOW: Fault = Fault::Delay(Duration::from_millis(60));
/// Slow pages that are traced. One may be slow for another reason on a busy machine.
const TRACED: usize = 7;
/// As most HTTP clients are without a word: they wait for a minute or for ever.
const WITHOUT: [&str; 3] = ["60000", "60000", "60000"];
/// Spans leave in batches.
const SOON: Duration = Duration::from_secs(20);
const ASKED: &str = "with time-outs and a breaker: calls to the silent service ÷ pages";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds for which one service is silent
    #[arg(long, default_value_t = 4.0, value_parser = lab::experiment::seconds)]
    silent: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "partial-failure",
        "One service falls silent. Without time-outs and a breaker the whole shop stops within seconds, also for customers who \
         do not need that service. With them one box on the page is empty, few calls still go there, and a trace names it, here and in a collector",
        &["--silent", "3"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/peer.rs",
        replace: "if broken.failures >= FAILURES {",
        with: "if broken.failures >= u32::MAX {",
        check: ASKED,
    })
    .sabotage(Sabotage {
        file: "src/shop.rs",
        replace: "if !self.patience.no_fallback => {",
        with: "if self.patience.no_fallback => {",
        check: "with time-outs and a breaker: pages at the end",
    })
}

/// What customers saw, and how often the silent service was called.
struct Aftermath {
    pages: Vec<Seen>,
    orders: Vec<Seen>,
    asked: u64,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let proxied = [Recommendations];
    let collector = Collector::default();
    let served = here(collector.router()).await?;
    let otlp = format!("http://{}", served.host);
    let words = ["--otlp", otlp.as_str()];
    let with = Setup {
        time_outs: WITH,
        words: &words,
        gateway: &IN_FLIGHT,
        proxied: &proxied,
        ..Setup::default()
    };
    let services = fixture.services(&with).await?;
    let customer = services.customer()?;
    customer.fill(3).await?;
    together(&fixture, 3).await?;
    let order = customer.must_buy(1, 1, "looked-at").await?["id"].to_string();
    let order = order.trim_matches('"').to_owned();
    lab.progress(0, 2, "with time-outs and a breaker");
    let calm = silent(&services, params, &order).await?;
    services.network(Recommendations)?.heal();
    let recovered = within(SOON, "all of the page is there again", async || {
        let page = customer.must_get("/products/1").await.unwrap_or_default();
        Ok(page["recommendations"].is_array().then_some(()))
    });
    let recovered = recovered.await.is_ok();
    services.network(Recommendations)?.set(SLOW);
    let mut named = Vec::new();
    for _ in 0..TRACED {
        let trace = customer.traced("/products/1", rand::random::<u128>() | 1).await;
        let slowest = trace.map(|it| it["slowest"]["name"].as_str().unwrap_or_default().to_owned());
        named.push(slowest.unwrap_or_default());
    }
    // The one in the middle of all in their order is that of most of them, if there is one.
    named.sort();
    let named = named.swap_remove(TRACED / 2);
    services.network(Recommendations)?.heal();
    let mut collected = false;
    // A trace may be told before its last span is there. Whether the collector has all of one is tried three times.
    for _ in 0..3 {
        collected = collected || self::collected(&customer, &collector).await;
    }
    lab.progress(1, 2, "without");
    let words = ["--no-breaker"];
    let naive = Setup {
        time_outs: WITHOUT,
        words: &words,
        gateway: &IN_FLIGHT,
        proxied: &proxied,
        ..Setup::default()
    };
    let naive = fixture.services(&naive).await?;
    let stuck = silent(&naive, params, &order).await?;
    let mut rows = Vec::new();
    for (name, seen) in [("with time-outs and a breaker", &calm), ("without", &stuck)] {
        let (pages, orders) = (last_third(&seen.pages), last_third(&seen.orders));
        let percent = |share: f64| format!("{:.0} %", share * 100.0);
        rows.push(vec![name.to_owned(), percent(pages), percent(orders), seen.asked.to_string()]);
        lab.figure(format!("{name}: pages in time at the end"), pages * 100.0, "%");
        lab.figure(format!("{name}: orders looked at in time at the end"), orders * 100.0, "%");
        for (n, some) in seen.orders.chunks(4).enumerate() {
            let point = (n as f64 * 4.0 / ORDERS, share(some) * 100.0);
            let title = "Orders looked at in time, by customers who do not need the silent service";
            lab.point(title, ("seconds", "% in time"), name, point);
        }
    }
    let columns = ["calls", "pages at the end", "orders at the end", "calls to the silent service"];
    lab.table("In time, in the last third", &columns, rows);
    let at_least = |check: &str, seen: f64, least: f64| {
        lab.check(check, format!("{least} or more"), format!("{seen:.2}"), seen >= least);
    };
    at_least("with time-outs and a breaker: pages at the end", last_third(&calm.pages), 0.95);
    at_least("with time-outs and a breaker: orders at the end", last_third(&calm.orders), 0.95);
    for (check, seen) in
        [("without: pages at the end", &stuck.pages), ("without: orders at the end", &stuck.orders)]
    {
        let seen = last_third(seen);
        lab.check(check, "0.1 or less", format!("{seen:.2}"), seen <= 0.1);
    }
    let ratio = calm.asked as f64 / calm.pages.len() as f64;
    lab.check(ASKED, "0.5 or less", format!("{ratio:.2}"), ratio <= 0.5);
    lab.check_eq("when the service is back, all of the page is there again", true, recovered);
    lab.check_eq("the traces of most slow pages name", "recommendations.with".to_owned(), named);
    lab.check_eq("a collector got the same spans over OTLP, from all services", true, collected);
    Ok(())
}

fn last_third(seen: &[Seen]) -> f64 {
    share(&seen[seen.len() * 2 / 3..])
}

/// Pages and orders under load, while the recommendations fall silent.
async fn silent(services: &Services, params: Params, order: &str) -> anyhow::Result<Aftermath> {
    let url = services.url(Gateway);
    let host = url.trim_start_matches("http://");
    let time = BEFORE + Duration::from_secs_f64(params.silent);
    let path = format!("/orders/{order}");
    let patience = patience(&services.customer()?, &path).await?;
    // Who waits for a page waits longer than is good for the shop: a client that hangs up gives its place back.
    let longest = Duration::from_mins(1);
    let pages = Load::begin(host, PAGES, time, longest, |n| format!("/products/{}", 1 + n % 3));
    let orders = Load::begin(host, ORDERS, time, patience, move |_| path.clone());
    sleep(BEFORE).await;
    let network = services.network(Recommendations)?;
    let before = network.connections();
    network.set(Fault::BlackHole);
    let (orders, pages) = (orders.end().await?, pages.stop(patience).await);
    Ok(Aftermath { pages, orders, asked: network.connections() - before })
}

/// Whether a collector hears soon of all spans of a page that the services know. A shop without traces has none.
async fn collected(customer: &Customer, collector: &Collector) -> bool {
    let id = rand::random::<u128>() | 1;
    let Ok(trace) = customer.traced("/products/1", id).await else { return false };
    let text = |span: &Value, field: &str| span[field].as_str().unwrap_or_default().to_owned();
    let spans = trace["spans"].as_array().into_iter().flatten();
    let mut known: Vec<_> = spans.map(|it| (text(it, "service"), text(it, "id"))).collect();
    known.sort();
    let services: BTreeSet<_> = known.iter().map(|(service, _)| service).collect();
    let same = within(SOON, "the collector has all spans", async || {
        Ok((collector.of(id) == known).then_some(()))
    });
    services.len() >= 4 && same.await.is_ok()
}

/// Twenty times what an order takes on this machine when all is well.
async fn patience(customer: &Customer, path: &str) -> anyhow::Result<Duration> {
    let mut times = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        customer.must_get(path).await?;
        times.push(begun.elapsed().as_secs_f64());
    }
    Ok(PATIENCE.max(Duration::from_secs_f64(median(times) * 20.0)))
}
