//! What does a call cost that was a function call before?

use std::{
    collections::BTreeSet,
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::http::HeaderMap;
use lab::{
    Experiment, Lab, Sabotage, Target,
    fault::{Fault, Proxy},
    load::{self, Stop, http::Connection, median},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::fixture::{Customer, Fixture, Setup};
use crate::call::{Call, Spans};
use crate::module::Module::{Catalogue, Gateway, Orders, Pricing, Recommendations};
use crate::peer::{Patience, Peer, Retries};
use crate::pricing::{Ask, Question, Quote, quote};

/// Each way between two services.
const DELAY: Duration = Duration::from_millis(1);
const AT_ONCE: &str = "in parallel: calls that were under way at the same time, at most";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Calls over HTTP in each of five turns
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    calls: u32,
    /// Pages in each of five turns
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pages: u32,
    /// Seconds of load for each throughput, in each of three turns
    #[arg(long, default_value_t = 0.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "call-cost",
        "A call over HTTP takes thousands of times as long as the same function, on one machine and before any network. \
         A page needs seven of them. Those that need nothing of each other can be under way at the same time, so it takes \
         as long as three or four",
        &["--calls", "60", "--pages", "5", "--seconds", "0.1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/shop.rs",
        replace: "if self.patience.one_by_one { 1 } else { 16 }",
        with: "if self.patience.one_by_one { 16 } else { 1 }",
        check: AT_ONCE,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let setup = Setup { proxied: &[Catalogue, Pricing, Recommendations], ..Setup::default() };
    let mut services = fixture.services(&setup).await?;
    let one_by_one = Setup { gateway: &["--one-by-one"], ..Setup::default() };
    let slow = fixture.prepared(Gateway, &one_by_one, &services).start().await?;
    let (fast, slow) = (services.customer()?, Customer::of(slow.url()).map(|it| (it, slow))?);
    let slow_customer = &slow.0;
    fast.fill(3).await?;
    together(&fixture, 3).await?;
    one_call(&lab, params, &services.url(Pricing), services.child(Pricing)?.pid()).await?;
    let address = services.child(Pricing)?.address().to_owned();
    let near = per_call(&format!("http://{address}"), params.calls).await?;
    services.network(Pricing)?.set(Fault::Delay(DELAY));
    let far = per_call(&services.url(Pricing), params.calls.min(100)).await?;
    lab.figure("one call over HTTP, 1 ms of network each way, ÷ without a network", far / near, "");
    for module in setup.proxied {
        services.network(*module)?.set(Fault::Delay(DELAY));
    }
    let asked = || {
        setup.proxied.iter().map(|it| services.network(*it).map_or(0, Proxy::messages)).sum::<u64>()
    };
    let (mut times, mut rows) = ([Vec::new(), Vec::new()], Vec::new());
    for turn in 0..5 {
        lab.progress(turn, 5, "pages");
        for (customer, times) in [slow_customer, &fast].into_iter().zip(&mut times) {
            customer.must_get("/products/1").await?;
            let begun = Instant::now();
            for _ in 0..params.pages {
                customer.must_get("/products/1").await?;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e3 / f64::from(params.pages));
        }
    }
    for (n, (name, customer)) in
        [("one after another", slow_customer), ("in parallel", &fast)].into_iter().enumerate()
    {
        let before = asked();
        let page = customer.must_get("/products/1").await?;
        let calls = asked() - before;
        ensure!(page["recommendations"].as_array().is_some_and(|it| it.len() == 2), "{page}");
        lab.check_eq(format!("{name}: calls to other services for one page"), 7, calls);
        let trace = customer.traced("/products/1", 0x1000 + n as u128).await?;
        let most = at_the_same_time(&trace)?;
        if n == 0 {
            lab.check_eq("one after another: the same", 1, most);
        } else {
            lab.check(AT_ONCE, "2 or more", most, most >= 2);
        }
        let time = median(times[n].clone());
        rows.push(vec![name.to_owned(), calls.to_string(), most.to_string(), format!("{time:.2}")]);
        lab.figure(format!("{name}: a page, 1 ms of network each way"), time, "ms");
    }
    let columns = ["calls", "in all", "at the same time", "ms for a page"];
    lab.table("A page of seven calls", &columns, rows);
    let ratio = median(times[0].clone()) / median(times[1].clone());
    lab.figure_with_target(
        "a page one after another ÷ in parallel",
        ratio,
        "",
        Target::AtLeast(1.5),
    );
    for module in setup.proxied {
        services.network(*module)?.heal();
    }
    throughputs(&lab, &fixture, &services, params).await
}

/// Customers 1 to 5 have bought all of these.
pub async fn together(fixture: &Fixture, products: i64) -> anyhow::Result<()> {
    let pool = fixture.of_service(Recommendations)?.pool().await?;
    let bought = "insert into recommendations.bought (order_id, customer, product)
                  select gen_random_uuid(), c, p from generate_series(1, 5) as c, generate_series(1, $1) as p";
    sqlx::query(bought).bind(products).execute(&pool).await?;
    Ok(())
}

/// The median of five turns, in microseconds a call.
async fn per_call(url: &str, calls: u32) -> anyhow::Result<f64> {
    let patience = Patience {
        timeout_ms: 10_000,
        call_timeout_ms: 10_000,
        optional_timeout_ms: 10_000,
        retries: Retries::Budget,
        no_breaker: true,
        no_fallback: true,
        one_by_one: false,
    };
    let peer = Peer::new("pricing", vec![url.to_owned()], 10_000, &patience)?;
    let spans = Spans::new("experiment");
    let question = Ask::quote(Question { cents: 1_000, quantity: 3 });
    let mut turns = Vec::new();
    for _ in 0..5 {
        let call = Call::receive(&HeaderMap::new(), Duration::from_mins(1), &spans)?;
        let begun = Instant::now();
        for _ in 0..calls {
            let quote: Quote = peer.ask(&call, &question).await?;
            ensure!(quote.cents == 2_850, "{quote:?}");
        }
        turns.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
    }
    Ok(median(turns))
}

async fn one_call(lab: &Lab, params: Params, url: &str, pid: Option<u32>) -> anyhow::Result<()> {
    let mut functions = Vec::new();
    for _ in 0..5 {
        let begun = Instant::now();
        for cents in 0..1_000_000 {
            black_box(quote(black_box(Question { cents, quantity: 3 })));
        }
        // Microseconds, as of a million calls in seconds.
        functions.push(begun.elapsed().as_secs_f64());
    }
    let function = median(functions);
    let before = cpu_seconds(pid);
    let http = per_call(url, params.calls).await?;
    let after = cpu_seconds(pid);
    lab.figure("one call as a function", function * 1e3, "ns");
    lab.figure("one call over HTTP, on one machine", http, "µs");
    lab.figure("one call over HTTP ÷ as a function", http / function, "");
    if let Some((before, after)) = before.zip(after) {
        let each = (after - before) * 1e6 / f64::from(params.calls * 5);
        lab.figure("processor time of the service for one call", each, "µs");
    }
    let rows = vec![
        vec!["a function".to_owned(), format!("{function:.4}")],
        vec!["HTTP and JSON on one machine".to_owned(), format!("{http:.0}")],
    ];
    lab.table("One price", &["as", "µs"], rows);
    Ok(())
}

/// The processor time that a process has used; nothing where there is no `/proc`.
fn cpu_seconds(pid: Option<u32>) -> Option<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid?)).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks = fields.split_whitespace().skip(11).take(2).filter_map(|it| it.parse::<f64>().ok());
    // A hundred ticks a second, on every Linux of today.
    Some(ticks.sum::<f64>() / 100.0)
}

/// How many calls of the gateway to other modules overlapped, at most. All by one clock.
fn at_the_same_time(trace: &Value) -> anyhow::Result<usize> {
    let spans = trace["spans"].as_array().context("no spans")?;
    let ours = spans.iter().filter(|it| it["service"] == "gateway");
    let mut calls = Vec::new();
    for span in ours.filter(|it| it["name"].as_str().is_some_and(|name| name.contains('.'))) {
        let at = OffsetDateTime::parse(span["at"].as_str().context("no time")?, &Rfc3339)?;
        let micros = span["micros"].as_i64().context("no duration")?;
        calls.push((at, at + time::Duration::microseconds(micros)));
    }
    let moments: BTreeSet<_> = calls.iter().map(|(begin, _)| *begin).collect();
    let open = |at: OffsetDateTime| calls.iter().filter(|it| it.0 <= at && at < it.1).count();
    Ok(moments.into_iter().map(open).max().unwrap_or(0))
}

/// The gateway beside the service itself, and spans beside none.
async fn throughputs(
    lab: &Lab,
    fixture: &Fixture,
    services: &super::fixture::Services,
    params: Params,
) -> anyhow::Result<()> {
    let order = services.customer()?.must_buy(1, 1, "throughput").await?;
    let id = order["id"].as_str().context("an id")?.to_owned();
    let monolith = fixture.monolith().start().await?;
    Customer::of(monolith.url())?.fill(1).await?;
    let host = |url: String| url.trim_start_matches("http://").to_owned();
    let get = |path: &str, sampled: u8| {
        let parent = format!("00-{:032x}-{:016x}-0{sampled}", 7, 7);
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\ntraceparent: {parent}\r\n\r\n");
        (request, path.to_owned())
    };
    let question = json!({ "find": id }).to_string();
    let direct = format!(
        "POST /internal/orders HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{question}",
        question.len()
    );
    let ways = [
        (host(services.url(Orders)), (direct, "the orders".to_owned())),
        (host(services.url(Gateway)), get(&format!("/orders/{id}"), 1)),
        (monolith.address().to_owned(), get("/products/1", 0)),
        (monolith.address().to_owned(), get("/products/1", 1)),
    ];
    let mut rates = [const { Vec::new() }; 4];
    for turn in 0..3 {
        for ((host, (request, name)), rates) in ways.iter().zip(&mut rates) {
            lab.progress(turn, 3, format!("load on {name}"));
            rates.push(throughput(host, request, params.seconds).await?);
        }
    }
    let [direct, gateway, untraced, traced] = rates.map(median);
    let name = "an order through the gateway ÷ from the service itself, throughput";
    lab.figure_with_target(name, gateway / direct, "", Target::AtLeast(0.8));
    let name = "pages of the monolith with spans ÷ without, throughput";
    lab.figure_with_target(name, traced / untraced, "", Target::AtLeast(0.95));
    Ok(())
}

async fn throughput(host: &str, request: &str, seconds: f64) -> anyhow::Result<f64> {
    let mut clients = Vec::new();
    for _ in 0..8 {
        let connection = Connection::open(host).await?;
        clients.push((connection, request.as_bytes().to_vec()));
    }
    let outcome = load::closed(clients, Stop::After(Duration::from_secs_f64(seconds)), |client| {
        Box::pin(async move {
            let status = client.0.send(&client.1).await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
    });
    let outcome = outcome.await?;
    ensure!(outcome.failed == 0, "{:?}", outcome.first_error);
    Ok(outcome.throughput())
}
