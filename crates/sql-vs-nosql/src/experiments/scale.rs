//! What do shards give, and what do they take? The customers are spread over one, two and four servers by their ids.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    time::{Duration, Instant},
};

use anyhow::Context;
use axum::response::IntoResponse;
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Need, Sabotage, Service};
use redis::{aio::MultiplexedConnection, cmd};
use serde_json::json;

use super::fixture::{Fixture, customer, make, one_of_each};
use crate::{
    entity::Kind,
    query::By,
    store::{Model, Store},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Customers
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(100..=100_000))]
    customers: u32,
    /// Seconds of load on each number of shards
    #[arg(long, default_value_t = 1.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "scale",
        "Shards by key divide the load evenly as long as the keys are asked for evenly; with one hot key its shard has \
         half of it or more; a report asks every shard; and an order whose customer and product are on different shards \
         cannot be placed in one step",
        &["--customers", "200", "--seconds", "0.2"],
        run,
    )
    .needs(&[Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/key_value.rs",
        replace: "redis.call('lpush', KEYS[3], KEYS[1])",
        with: "-- the customer's list is enough",
        check: "the report over 4 shards: cents",
    })
}

const CLIENTS: u32 = 16;
const PRICE: i64 = 100;
/// Half of the requests ask for this customer.
const HOT: &str = "c0";

/// A server, its store, and a way to ask it how much it has done.
struct Shard {
    store: Store,
    redis: MultiplexedConnection,
}

/// The shard of a key.
fn place(key: &str, shards: usize) -> usize {
    let mut hash = DefaultHasher::new();
    key.hash(&mut hash);
    usize::try_from(hash.finish() % shards as u64).unwrap_or_default()
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut servers = Vec::new();
    for _ in 0..4 {
        servers.push(lab.own_server(Service::Redis).await?);
    }
    let (mut rows, mut rates, mut reports) = (Vec::new(), Vec::new(), Vec::new());
    for (done, many) in (0..).zip([1, 2, 4]) {
        lab.progress(done, 4, format!("shards: {many}"));
        let mut shards = Vec::new();
        for server in &servers[..many] {
            let url = server.url()?;
            let redis = redis::Client::open(&*url)?.get_multiplexed_async_connection().await?;
            let prefix = format!("of-{many}:");
            shards.push(Shard {
                store: Store::new(Model::KeyValue, ("", None), (&url, &prefix))?,
                redis,
            });
        }
        let stores: Vec<_> = shards.iter().map(|shard| shard.store.clone()).collect();
        fill(&params, &stores).await?;
        for is_hot in [false, true] {
            let before = commands(&shards).await?;
            let rate = load(&params, &stores, is_hot).await?;
            let after = commands(&shards).await?;
            let busy: Vec<_> =
                after.iter().zip(before).map(|(after, before)| after - before).collect();
            let share = busy.iter().copied().fold(0.0, f64::max) / busy.iter().sum::<f64>() * 100.0;
            let kind = if is_hot { "one hot key" } else { "all keys alike" };
            let check =
                format!("{many} shards, {kind}: percent of all commands at the busiest shard");
            // One shard has all of the load, so there is nothing to check. Of two, the busiest has half of it in any case.
            if is_hot && many > 1 {
                let least = if many == 2 { 60.0 } else { 50.0 };
                let expected = format!("{least:.0} or more");
                lab.check(check, expected, format!("{share:.0}"), share >= least);
            } else if many > 1 {
                // A part for each, and a half more for chance.
                let most = 150.0 / many as f64;
                lab.check(
                    check,
                    format!("{most:.0} or less"),
                    format!("{share:.0}"),
                    share <= most,
                );
            }
            if !is_hot {
                rates.push(rate);
            }
            lab.figure(format!("{many} shards, {kind}"), rate, "requests/s");
            let cells =
                [many.to_string(), kind.to_owned(), format!("{rate:.0}"), format!("{share:.0}")];
            rows.push(cells.to_vec());
        }
        reports.push(report(&params, &lab, &stores).await?);
        if many == 4 {
            across(&lab, &stores).await?;
        }
    }
    lab.progress(3, 4, "one PostgreSQL");
    let one = [fixture.store(Model::Tables)?];
    fill(&params, &one).await?;
    let rate = load(&params, &one, false).await?;
    lab.figure("one PostgreSQL, all keys alike", rate, "requests/s");
    rows.push(
        ["one PostgreSQL", "all keys alike", &format!("{rate:.0}"), "100"]
            .map(str::to_owned)
            .to_vec(),
    );
    lab.figure("requests: 4 shards ÷ 1 shard", rates[2] / rates[0], "");
    lab.figure("requests: one PostgreSQL ÷ 1 shard", rate / rates[0], "");
    lab.figure("a report: over 4 shards ÷ over 1", reports[2] / reports[0], "");
    let columns = ["shards", "keys", "requests/s", "percent at the busiest"];
    lab.table("Customers by key", &columns, rows);
    lab.text(
        "All shards share the cores of this machine, and the clients too. So the requests per second cannot grow here as they \
         would with a machine for each shard; the share of the busiest shard says how much they could.",
    );
    Ok(())
}

async fn fill(params: &Params, stores: &[Store]) -> anyhow::Result<()> {
    let ids: Vec<_> = (0..params.customers).map(|n| format!("c{n}")).collect();
    for some in ids.chunks(16) {
        let made =
            some.iter().map(|id| customer(&stores[place(id, stores.len())], id, "GB", 1_000_000));
        try_join_all(made).await?;
    }
    // Every shard sells tea from a stock of its own.
    for store in stores {
        let tea = json!({ "name": "Tea", "price_cents": PRICE });
        make(store, Kind::Product, "tea", tea, 1_000_000).await?;
    }
    Ok(())
}

/// How many commands each server has run.
async fn commands(shards: &[Shard]) -> anyhow::Result<Vec<f64>> {
    let mut all = Vec::new();
    for shard in shards {
        let about: String = cmd("INFO").arg("stats").query_async(&mut shard.redis.clone()).await?;
        let line = about.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
        all.push(line.context("INFO says nothing about commands")?.trim().parse()?);
    }
    Ok(all)
}

/// Reads and deposits, three to one; how many were answered in a second.
async fn load(params: &Params, stores: &[Store], is_hot: bool) -> anyhow::Result<f64> {
    let begun = Instant::now();
    let clients = (0..CLIENTS).map(|client| async move {
        let mut done = 0_u32;
        while begun.elapsed() < Duration::from_secs_f64(params.seconds) {
            let n = done * CLIENTS + client;
            let id = if is_hot && done % 4 >= 2 {
                HOT.to_owned()
            } else {
                format!("c{}", n % params.customers)
            };
            let store = &stores[place(&id, stores.len())];
            if done % 4 == 3 {
                store.add(Kind::Customer, &id, 1).await?;
            } else {
                store.get(Kind::Customer, &id, None).await?;
            }
            done += 1;
        }
        anyhow::Ok(done)
    });
    let done: u32 = try_join_all(clients).await?.into_iter().sum();
    Ok(f64::from(done) / begun.elapsed().as_secs_f64())
}

/// A question across all customers goes to every shard, and the program adds up; how many milliseconds it takes.
async fn report(params: &Params, lab: &Lab, stores: &[Store]) -> anyhow::Result<f64> {
    let many = stores.len();
    let ids: Vec<_> = (0..params.customers).map(|n| format!("c{n}")).collect();
    for some in ids.chunks(16) {
        let ordered = some.iter().map(|id| async move {
            let store = &stores[place(id, many)];
            store.place(&one_of_each(id, [&"tea".to_owned()])).await
        });
        try_join_all(ordered).await?;
    }
    let begun = Instant::now();
    let by = By { month: true, ..By::default() };
    let parts = try_join_all(stores.iter().map(|store| store.revenue(by))).await?;
    let cents: i64 = parts.iter().flatten().map(|row| row.cents).sum();
    let ms = begun.elapsed().as_secs_f64() * 1e3;
    let expected = i64::from(params.customers) * PRICE;
    lab.check_eq(format!("the report over {many} shards: cents"), expected, cents);
    lab.figure(format!("the report over {many} shards"), ms, "ms");
    Ok(ms)
}

/// A cup is on one shard, and its buyer on another.
async fn across(lab: &Lab, stores: &[Store]) -> anyhow::Result<()> {
    let cups = place("cup", stores.len());
    let cup = json!({ "name": "Cup", "price_cents": PRICE });
    make(&stores[cups], Kind::Product, "cup", cup, 10).await?;
    let buyers = (0..100).map(|n| format!("c{n}"));
    let buyer = buyers.into_iter().find(|id| place(id, stores.len()) != cups);
    let buyer = buyer.context("all buyers are on the same shard")?;
    let store = &stores[place(&buyer, stores.len())];
    let order = store.place(&one_of_each(&buyer, [&"cup".to_owned()])).await;
    let status = order.map_or_else(|error| error.into_response().status().as_u16(), |_| 201);
    lab.check_eq("an order of a product on another shard: the answer", 422, status);
    Ok(())
}
