//! What does a call cost that was a function call before?

use std::{
    collections::BTreeSet,
    hint::black_box,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use axum::http::HeaderMap;
use lab::{
    Experiment, Lab, Sabotage, Target,
    child::Child,
    fault::{Fault, Proxy},
    load::{self, Outcome, Stop, http::Connection, median},
};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::compare::grpc;
use super::fixture::{Customer, Fixture, Services, Setup};
use crate::call::{Call, Spans};
use crate::module::Module::{Catalogue, Gateway, Orders, Pricing, Recommendations};
use crate::peer::{Patience, Peer, Retries};
use crate::pricing::{Ask, Question, Quote, quote};

/// Each way between two services.
const DELAY: Duration = Duration::from_millis(1);
const FEWER: &str = "one call over gRPC ÷ over HTTP, bytes";
const PLACING: &str = "placing an order: processor time of the gateway ÷ of the orders' service";
/// For all calls of a turn: no time-out may end it on a slow machine.
const LONGEST: Duration = Duration::from_hours(1);
/// Which stands for a new key in each request of a load.
const NEW: &str = "########";
const AT_ONCE: &str = "in parallel: calls that were under way at the same time, at most";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Calls over HTTP, and over gRPC, in each of five turns
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    calls: u32,
    /// Pages in each of five turns
    #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pages: u32,
    /// Seconds of load for each throughput, in each of four turns, of which the first is not counted
    #[arg(long, default_value_t = 0.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "call-cost",
        "A call over HTTP and JSON, or over gRPC, takes thousands of times as long as the same function, on one machine and \
         before any network. A page needs seven of them. Those that need nothing of each other can be under way at the same \
         time",
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
    one_call(&lab, params, &mut services).await?;
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

/// Somebody who asks for a price.
enum Caller {
    Json(Peer),
    Grpc(grpc::Client),
}

impl Caller {
    /// In each of the two ways.
    fn both(url: &str) -> anyhow::Result<[Self; 2]> {
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
        Ok([Self::Json(peer), Self::Grpc(grpc::Client::to(url)?)])
    }

    async fn ask(&mut self, call: &Call) -> anyhow::Result<()> {
        let question = Question { cents: 1_000, quantity: 3 };
        let quote: Quote = match self {
            Self::Json(peer) => peer.ask(call, &Ask::quote(question)).await?,
            Self::Grpc(client) => client.quote(call, question).await?,
        };
        ensure!(quote.cents == 2_850, "{quote:?}");
        Ok(())
    }
}

/// Of one call.
#[derive(Clone, Copy, Default)]
struct Cost {
    /// The median of five turns.
    micros: f64,
    /// Of the service; 0 where there is no `/proc`.
    processor_micros: f64,
    /// Both ways, with what belongs to HTTP.
    bytes: f64,
}

/// One call over HTTP and JSON, and one over gRPC, in turns beside each other.
async fn both_ways(
    url: &str,
    pid: Option<u32>,
    network: &Proxy,
    calls: u32,
) -> anyhow::Result<[Cost; 2]> {
    let spans = Spans::new("experiment");
    let (mut callers, mut costs) = (Caller::both(url)?, [Cost::default(); 2]);
    let mut times = [Vec::new(), Vec::new()];
    let all = f64::from(calls * 5);
    for _ in 0..5 {
        for ((caller, cost), times) in callers.iter_mut().zip(&mut costs).zip(&mut times) {
            let call = Call::receive(&HeaderMap::new(), LONGEST, &spans)?;
            // The connection is open.
            caller.ask(&call).await?;
            let (processor, bytes, begun) = (cpu_seconds(pid), network.bytes(), Instant::now());
            for _ in 0..calls {
                caller.ask(&call).await?;
            }
            times.push(begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls));
            let used = cpu_seconds(pid).zip(processor).map_or(0.0, |(now, before)| now - before);
            cost.processor_micros += used * 1e6 / all;
            let (sent, heard) = network.bytes();
            cost.bytes += (sent + heard - bytes.0 - bytes.1) as f64 / all;
        }
    }
    for (cost, times) in costs.iter_mut().zip(times) {
        cost.micros = median(times);
    }
    Ok(costs)
}

async fn one_call(lab: &Lab, params: Params, services: &mut Services) -> anyhow::Result<()> {
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
    let pricing = services.child(Pricing)?;
    let (direct, pid) = (format!("http://{}", pricing.address()), pricing.pid());
    let (through, network) = (services.url(Pricing), services.network(Pricing)?);
    let near = both_ways(&direct, pid, network, params.calls).await?;
    network.set(Fault::Delay(DELAY));
    let far = both_ways(&through, pid, network, (params.calls / 4).clamp(5, 100)).await?;
    network.heal();
    lab.figure("one call as a function", function * 1e3, "ns");
    let mut rows = vec![vec!["a function".to_owned(), format!("{function:.4}")]];
    rows[0].extend([format!("{function:.4}"), "none".to_owned(), "0".to_owned()]);
    for ((way, near), far) in ["over HTTP", "over gRPC"].into_iter().zip(&near).zip(&far) {
        lab.figure(format!("one call {way}, on one machine"), near.micros, "µs");
        let (name, ratio) = (format!("one call {way} ÷ as a function"), near.micros / function);
        lab.check(&name, "1000 or more", format!("{ratio:.0}"), ratio >= 1_000.0);
        lab.figure(name, ratio, "");
        let name = format!("one call {way}, 1 ms of network each way, ÷ without a network");
        lab.figure(name, far.micros / near.micros, "");
        let name = format!("processor time of the service for one call {way}");
        lab.figure(name, near.processor_micros, "µs");
        lab.figure(format!("one call {way}, bytes"), far.bytes, "bytes");
        let numbers = [near.micros, near.processor_micros, far.micros, far.bytes];
        let numbers = numbers.into_iter().map(|it| format!("{it:.0}"));
        rows.push([way.to_owned()].into_iter().chain(numbers).collect());
    }
    let columns = ["as", "µs", "µs of the service's processor", "µs, 1 ms each way", "bytes"];
    lab.table("One price", &columns, rows);
    lab.figure("one call over gRPC ÷ over HTTP, time", near[1].micros / near[0].micros, "");
    if near[0].processor_micros > 0.0 {
        let ratio = near[1].processor_micros / near[0].processor_micros;
        lab.figure("one call over gRPC ÷ over HTTP, processor time of the service", ratio, "");
    }
    let ratio = far[1].bytes / far[0].bytes;
    lab.check(FEWER, "0.9 or less", format!("{ratio:.2}"), ratio <= 0.9);
    lab.figure(FEWER, ratio, "");
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

/// When each call of the gateway to another service began and ended. All by one clock.
fn calls_of_the_gateway(trace: &Value) -> anyhow::Result<Vec<(OffsetDateTime, OffsetDateTime)>> {
    let spans = trace["spans"].as_array().context("no spans")?;
    let ours = spans.iter().filter(|it| it["service"] == "gateway");
    let mut calls = Vec::new();
    for span in ours.filter(|it| it["name"].as_str().is_some_and(|name| name.contains('.'))) {
        let at = OffsetDateTime::parse(span["at"].as_str().context("no time")?, &Rfc3339)?;
        let micros = span["micros"].as_i64().context("no duration")?;
        calls.push((at, at + time::Duration::microseconds(micros)));
    }
    Ok(calls)
}

/// How many of them overlapped, at most.
fn at_the_same_time(trace: &Value) -> anyhow::Result<usize> {
    let calls = calls_of_the_gateway(trace)?;
    let moments: BTreeSet<_> = calls.iter().map(|(begin, _)| *begin).collect();
    let open = |at: OffsetDateTime| calls.iter().filter(|it| it.0 <= at && at < it.1).count();
    Ok(moments.into_iter().map(open).max().unwrap_or(0))
}

/// The gateway beside the service itself, and spans beside none.
async fn throughputs(
    lab: &Lab,
    fixture: &Fixture,
    services: &Services,
    params: Params,
) -> anyhow::Result<()> {
    let order = services.customer()?.must_buy(1, 1, "throughput").await?;
    let id = order["id"].as_str().context("an id")?.to_owned();
    let (orders, gateway) = (services.url(Orders), services.url(Gateway));
    let pids = [Gateway, Orders].map(|it| services.children.get(&it).and_then(Child::pid));
    let new = json!({ "customer": 1, "product": 1, "quantity": 1 });
    let mut keyed = new.clone();
    keyed["key"] = json!(NEW);
    let key = format!("idempotency-key: {NEW}\r\n");
    let ways = [
        (&orders, post("/internal/orders", "", &json!({ "find": id }))),
        (&gateway, get(&format!("/orders/{id}"), 1)),
        (&orders, post("/internal/orders", "", &json!({ "place": keyed }))),
        (&gateway, post("/orders", &key, &new)),
    ];
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    let mut rates = [const { Vec::new() }; 4];
    // The first turn is not counted.
    for turn in 0..4 {
        lab.progress(turn, 4, "load on the gateway, and on the orders themselves");
        for ((url, request), rates) in ways.iter().zip(&mut rates) {
            let outcome = under_load(url, request, stop).await?;
            rates.extend((turn > 0).then(|| outcome.throughput()));
        }
    }
    let [found, found_there, placed, placed_there] = rates.map(median);
    let name = "an order through the gateway ÷ from the service itself, throughput";
    lab.figure_with_target(name, found_there / found, "", Target::AtLeast(0.8));
    let name = "placing an order through the gateway ÷ with the service itself, throughput";
    lab.figure_with_target(name, placed_there / placed, "", Target::AtLeast(0.8));
    // As much work on a busy machine as on an idle one.
    let stop = Stop::Count(u64::from(params.calls) * 2);
    let used = || pids.map(cpu_seconds);
    let before = used();
    let (url, request) = &ways[3];
    under_load(url, request, stop).await?;
    if let ([Some(gateway), Some(orders)], [Some(gateway_before), Some(orders_before)]) =
        (used(), before)
    {
        let ratio = (gateway - gateway_before) / (orders - orders_before);
        lab.figure(PLACING, ratio, "");
    }
    let trace = services.customer()?.traced(&format!("/orders/{id}"), 0x2000).await?;
    let calls = calls_of_the_gateway(&trace)?.len();
    lab.check_eq("an order through the gateway: its calls to other services", 1, calls);
    let monolith = fixture.monolith().args(&["--timeout-ms", "20000"]).start().await?;
    let shop = Customer::of(monolith.url())?;
    shop.fill(1).await?;
    let (mut rates, mut used) = ([const { Vec::new() }; 2], [0.0; 2]);
    // Many turns, as the difference is a few percent. Each begins with the other of the two, so that neither is always the
    // second, when the machine is warmer or busier. The first turn is not counted.
    for turn in 0..7 {
        lab.progress(turn, 7, "pages with spans, and without");
        let both = if turn % 2 == 0 { [0, 1] } else { [1, 0] };
        for sampled in both {
            let before = cpu_seconds(monolith.pid());
            let outcome = under_load(monolith.url(), &get("/products/1", sampled), stop).await?;
            let seconds = cpu_seconds(monolith.pid()).zip(before).map(|(now, then)| now - then);
            if turn > 0 {
                rates[sampled].push(outcome.throughput());
                used[sampled] += seconds.unwrap_or(0.0);
            }
        }
    }
    let [without, with] = rates.map(median);
    let name = "pages of the monolith with spans ÷ without, throughput";
    lab.figure_with_target(name, with / without, "", Target::AtLeast(0.95));
    if used[0] > 0.0 {
        let name = "pages of the monolith with spans ÷ without, processor time";
        lab.figure_with_target(name, used[1] / used[0], "", Target::AtMost(1.05));
    }
    // Otherwise both were the same, or no page was traced.
    for (check, sampled, expected) in [("with spans", 1, 200), ("without", 0, 404)] {
        let status = shop.get(&format!("/trace/{:032x}", trace_of(sampled))).await?.status();
        lab.check_eq(format!("{check}: the trace is answered with"), expected, status.as_u16());
    }
    Ok(())
}

/// All requests of a load are of one trace.
fn trace_of(sampled: usize) -> u128 {
    0x3000 + sampled as u128
}

fn get(path: &str, sampled: usize) -> String {
    let parent = format!("00-{:032x}-{:016x}-0{sampled}", trace_of(sampled), 7);
    format!("GET {path} HTTP/1.1\r\nhost: a\r\ntraceparent: {parent}\r\n\r\n")
}

fn post(path: &str, headers: &str, body: &Value) -> String {
    let body = body.to_string();
    let length = body.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n{headers}\
         content-length: {length}\r\n\r\n{body}"
    )
}

/// Eight clients send this again and again, each time with a new key if it has one.
async fn under_load(url: &str, request: &str, stop: Stop) -> anyhow::Result<Outcome> {
    static KEYS: AtomicU64 = AtomicU64::new(0);
    let mut clients = Vec::new();
    for _ in 0..8 {
        let connection = Connection::open(url.trim_start_matches("http://")).await?;
        clients.push((connection, request.to_owned()));
    }
    let outcome = load::closed(clients, stop, |client| {
        Box::pin(async move {
            let key = format!("{:08}", KEYS.fetch_add(1, Relaxed));
            let status = client.0.send(client.1.replace(NEW, &key).as_bytes()).await?;
            ensure!(status == 200 || status == 201, "{status}");
            Ok(())
        })
    });
    let outcome = outcome.await?;
    ensure!(outcome.failed == 0, "{:?}", outcome.first_error);
    Ok(outcome)
}
