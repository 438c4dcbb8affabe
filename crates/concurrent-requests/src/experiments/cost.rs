//! What do the door, the deadline and the watchdog cost? A product from the shop, beside the same query in a bare handler, and
//! beside the query alone.

use std::time::Duration;

use anyhow::ensure;
use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    routing::get,
};
use clap::{Args, Command, FromArgMatches};
use lab::{
    Experiment, Lab, Sabotage, Target,
    fault::Proxy,
    load::{self, Outcome, Stop, http::Connection},
    serve::here,
};

use super::fixture::{Fixture, product};
use crate::{
    api,
    order::Product,
    service::{Options, Shop},
    store::Store,
};

/// Who answers.
const WHO: [&str; 3] = ["the query alone", "a bare handler", "the shop"];
/// Each is measured twice a round, so that a machine that becomes slower is no one's advantage.
const TURNS: [usize; 6] = [0, 1, 2, 2, 1, 0];

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients, each of which asks without a pause
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=32))]
    clients: u16,
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.8, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Rounds of six measurements
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cost",
        "A product costs the shop one statement, and no request is refused as long as no more are at work than may be",
        &["--seconds", "0.2", "--clients", "4", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "Ok(Json(shop.store.find(number(&part)?).await?))",
        with: "shop.store.find(number(&part)?).await?;\n    Ok(Json(shop.store.find(number(&part)?).await?))",
        check: "messages to PostgreSQL for a hundred requests are few",
    })
}

/// The handler that one would write if nothing else mattered: the same statement on the same pool.
async fn bare(
    State(store): State<Store>,
    Path(id): Path<i64>,
) -> Result<Json<Product>, StatusCode> {
    store.find(id).await.map(Json).map_err(|_| StatusCode::NOT_FOUND)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    // As `serve` without any options.
    let options = Options::augment_args(Command::new("serve")).try_get_matches_from(["serve"])?;
    let options = Options::from_arg_matches(&options)?;
    let (shop, worker) = Shop::open(fixture.database.url(), options)?;
    let store = shop.store.clone();
    let router = Router::new().route("/products/{id}", get(bare)).with_state(store.clone());
    let bare = here(router).await?;
    let ours = here(api::router(shop)).await?;
    let hosts = [&bare.host, &ours.host];
    let (mut rates, mut failed, mut rows) = ([const { Vec::new() }; 3], 0, Vec::new());
    for host in hosts {
        over_http(host, Params { seconds: 0.2, ..params }).await?;
    }
    for round in 0..params.rounds {
        for (n, who) in TURNS.into_iter().enumerate() {
            let (done, all) = (u64::from(round) * 6 + n as u64, u64::from(params.rounds) * 6);
            lab.progress(done, all, "measured by turns");
            let outcome = match who {
                0 => alone(&store, params).await?,
                _ => over_http(hosts[who - 1], params).await?,
            };
            failed += outcome.failed;
            rates[who].push(outcome.throughput());
            rows.push([vec![WHO[who].to_owned()], outcome.cells()].concat());
        }
    }
    lab.table("Each measurement", &[&["who"][..], &Outcome::COLUMNS].concat(), rows);
    let [alone, bare_rate, shop_rate] = rates.map(load::median);
    lab.figure("the shop: requests a second, median", shop_rate, "requests/s");
    let name = "the shop ÷ a bare handler, medians";
    lab.figure_with_target(name, shop_rate / bare_rate, "", Target::AtLeast(0.8));
    // Without HTTP the query alone has an advantage, so this target may be missed, and the report says so.
    let name = "the shop ÷ the query alone, medians";
    lab.figure_with_target(name, shop_rate / alone, "", Target::AtLeast(0.8));
    lab.figure("a bare handler ÷ the query alone, medians", bare_rate / alone, "");
    lab.check_eq("requests that failed or were refused", 0, failed);
    // All who can send jobs have to be gone.
    drop((ours, store));
    drop(worker);
    statements(&lab, &fixture).await
}

async fn alone(store: &Store, params: Params) -> anyhow::Result<Outcome> {
    let clients = (0..params.clients).map(|n| (store.clone(), i64::from(n) + 1)).collect();
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(clients, stop, |(store, id)| {
        Box::pin(async move { Ok(store.find(*id).await.map(drop)?) })
    })
    .await
}

struct Asker {
    connection: Connection,
    request: Vec<u8>,
}

async fn over_http(host: &str, params: Params) -> anyhow::Result<Outcome> {
    let mut clients = Vec::new();
    for n in 0..params.clients {
        let connection = Connection::open(host).await?;
        clients.push(Asker { request: connection.get(&product(n.into())), connection });
    }
    let stop = Stop::After(Duration::from_secs_f64(params.seconds));
    load::closed(clients, stop, |asker| {
        Box::pin(async {
            let status = asker.connection.send(&asker.request).await?;
            ensure!(status == 200, "{status}");
            Ok(())
        })
    })
    .await
}

/// How often the shop asks the database: one message for each request, and a ping for a connection that has rested.
async fn statements(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let url = proxy.url(fixture.database.url())?;
    let shop = fixture.serve().env("DATABASE_URL", url).start().await?;
    let mut connection = Connection::open(shop.address()).await?;
    let request = connection.get("/products/1");
    connection.send(&request).await?;
    let before = proxy.messages();
    for _ in 0..100 {
        let status = connection.send(&request).await?;
        ensure!(status == 200, "{status}");
    }
    let messages = proxy.messages() - before;
    let check = "messages to PostgreSQL for a hundred requests are few";
    lab.check(check, "100 to 150", messages, (100..=150).contains(&messages));
    Ok(())
}
