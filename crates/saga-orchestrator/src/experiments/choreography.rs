//! Is it better with nobody in charge? The same crash test, and then both side by side.

use std::time::{Duration, Instant};

use lab::{Experiment, Lab, Need, Sabotage, database::Database, fault::Proxy, load::median};
use sqlx::{Connection, PgConnection};

use super::{
    compare::reactions::Service,
    crash::{self, Path, Proxied, What},
    fixture::{ALL, Fixture, book_order, ended, start},
};
use crate::{cases::client::Client, saga::STEPS};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Which way the orders go that are disturbed
    #[arg(long, default_value = "failure", value_parser = ["success", "failure", "both"])]
    path: String,
    /// Which servers' messages it is killed at; at all five it takes some minutes
    #[arg(long, default_value = "shipping", value_parser = ["broker", "shipping", "all"])]
    at: String,
    /// Choreographies that are killed side by side
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    lanes: u16,
    /// Orders in a row for the comparison, of each kind
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    orders: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "choreography",
        "Killed at every message to shipping's database (with `--at all` to each of its databases and its broker), \
         the choreographed order ends as well: each effect once, or undone once. It needs more messages than the \
         orchestrated one, and no place knows its whole flow",
        &["--at", "shipping", "--lanes", "3", "--orders", "3"],
        run,
    )
    .needs(&[Need::Shared(lab::Service::RabbitMq)])
    .sabotage(Sabotage {
        file: "src/store/inventory.rs",
        replace: "set available = available + item.quantity, reserved = reserved - item.quantity",
        with: "set reserved = reserved - item.quantity",
        check: "items that have left the stock",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let paths: Vec<_> = [Path::Success, Path::Failure]
        .into_iter()
        .filter(|path| params.path == "both" || params.path == path.name())
        .collect();
    let servers: &[usize] = match params.at.as_str() {
        "broker" => &[0],
        "shipping" => &[4],
        _ => &[0, 1, 2, 3, 4],
    };
    crash::everywhere(&lab, &paths, servers, params.lanes, What::Choreography).await?;
    compare(&lab, params.orders).await
}

/// Both, with a proxy before each of their servers.
async fn compare(lab: &Lab, orders: u32) -> anyhow::Result<()> {
    let orchestrated = orchestrated(lab, orders).await?;
    let choreographed = choreographed(lab, orders).await?;
    let places = |count: usize, words: &str| format!("{count}: {words}");
    let reacting = Service::ALL.iter().filter(|service| !service.listens_to().is_empty()).count();
    let row = |name: &str, seen: &Seen, places: String| {
        vec![
            name.to_owned(),
            format!("{:.1}", seen.messages),
            format!("{:.1}", seen.latency),
            places,
        ]
    };
    lab.table(
        "An order that is confirmed, in both ways",
        &[
            "way",
            "messages sent for it",
            "ms until it is confirmed, median",
            "places that know what follows on what",
        ],
        vec![
            row("orchestration", &orchestrated, places(1, "the list of steps")),
            row(
                "choreography",
                &choreographed,
                places(reacting, "each service its part, and none the whole"),
            ),
        ],
    );
    lab.figure("messages, orchestrated", orchestrated.messages, "for each order");
    lab.figure("messages, choreographed", choreographed.messages, "for each order");
    lab.figure(
        "latency, choreographed ÷ orchestrated",
        choreographed.latency / orchestrated.latency,
        "",
    );
    lab.check(
        "the choreographed order needs more messages",
        format!("more than {:.1}", orchestrated.messages),
        format!("{:.1}", choreographed.messages),
        choreographed.messages > orchestrated.messages,
    );
    // Read from the code, so these are figures and no checks: a run could not refute them.
    let events: std::collections::BTreeSet<_> =
        Service::ALL.iter().flat_map(|service| service.listens_to()).collect();
    let most = Service::ALL.iter().map(|service| service.listens_to().len()).max().unwrap_or(0);
    lab.figure("steps in the orchestrator's list", STEPS.len() as f64, "");
    lab.figure("events of the choreography", events.len() as f64, "");
    lab.figure("events that any one service hears of, at most", most as f64, "");
    Ok(())
}

struct Seen {
    messages: f64,
    latency: f64,
}

async fn orchestrated(lab: &Lab, orders: u32) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    fixture.parts.stock(1_000).await?;
    let (mut proxies, mut urls) = (Vec::new(), Vec::new());
    let [inventory, payment, shipping] = fixture.parts.databases().map(Database::url);
    for database in [fixture.orders.url(), inventory, payment, shipping] {
        let proxy = Proxy::to_url(database).await?;
        urls.push(proxy.url(database)?);
        proxies.push(proxy);
    }
    let participants = fixture.serve_on([&urls[1], &urls[2], &urls[3]]).args(&["--only", ALL]);
    let participants = participants.start().await?;
    let proxy = Proxy::to(participants.address()).await?;
    let orchestrator = fixture
        .orchestrator([proxy.address(); 3])
        .env("DATABASE_URL", &urls[0])
        .args(&["--poll-ms", "60000"]);
    proxies.push(proxy);
    let (_child, client) = start(orchestrator).await?;
    measure(&client, &fixture, orders, || proxies.iter().map(Proxy::messages).sum()).await
}

async fn choreographed(lab: &Lab, orders: u32) -> anyhow::Result<Seen> {
    let fixture = Fixture::of(lab).await?;
    fixture.parts.stock(1_000).await?;
    let mut process = Proxied::choreography(lab, &fixture, "600000").await?;
    let seen = measure(&process.client, &fixture, orders, || process.messages()).await;
    if seen.is_err() {
        lab.text(process.whereabouts(&fixture).await?);
    }
    seen
}

/// One order after another; the first only warms it up. Asked of the database, past the proxies.
async fn measure(
    client: &Client,
    fixture: &Fixture,
    orders: u32,
    said: impl Fn() -> u64,
) -> anyhow::Result<Seen> {
    let mut direct = PgConnection::connect(fixture.orders.url()).await?;
    let (mut before, mut latencies) = (0, Vec::new());
    for number in 0..=orders {
        let begun = Instant::now();
        let key = format!("order {number}");
        client.place_order(&key, &book_order("pm_card_visa", "GB")).await?;
        ended(&mut direct, &key).await?;
        latencies.push(begun.elapsed().as_secs_f64() * 1e3);
        if number == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            latencies.clear();
            before = said();
        }
    }
    direct.close().await?;
    let messages = (said() - before) as f64 / f64::from(orders);
    Ok(Seen { messages, latency: median(latencies) })
}
