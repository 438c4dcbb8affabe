//! Is SQL for money? A hundred clients order from each store, while its program is being killed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use conform::target::eventually;
use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage, child::Child};
use redis::AsyncCommands;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{
    compare::naive::{Way, take, take_from_document},
    fixture::{Fixture, MODELS},
};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients, each of which is a customer
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(4..=200))]
    clients: u32,
    /// Times that each program is killed
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    kills: u32,
    /// Seconds of load before each kill
    #[arg(long, default_value_t = 0.7, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "money",
        "Clients order while the program is being killed, and no cent and no piece is missing: with tables, with documents \
         in a database that has transactions, and with keys where one script does it. Read, compute and write back loses \
         pieces in Redis and in documents alike; WATCH, or a row lock, does not",
        &["--clients", "12", "--kills", "1", "--seconds", "0.4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/postgres.rs",
        replace: "self.primary.transaction_or_refusal(work).await?",
        with: "self.primary.within(async |tx| Ok(work(tx).await)).await?",
        check: "tables: customers and products whose books are wrong",
    })
}

/// Each client stops after as many orders as the list of a customer shows.
const MOST: usize = 100;
const START: i64 = 1_000_000;
/// The first product is scarce, so that many want the last piece.
const SCARCE: i64 = 20;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut rows = Vec::new();
    for (n, (_, name)) in (0..).zip(MODELS) {
        lab.progress(n, 4, format!("orders with {name}"));
        let (mut child, client) = fixture.start(name).await?;
        let shop = Shop::open(&client, params.clients).await?;
        let (ordered, seconds) = load(&params, &mut child, &client, &shop).await?;
        let acknowledged: usize = ordered.iter().map(BTreeSet::len).sum();
        let books = Books::read(&client, &shop, &ordered).await?;
        lab.check_eq(
            format!("{name}: customers and products whose books are wrong"),
            0,
            books.wrong,
        );
        lab.check_eq(format!("{name}: amounts below zero"), 0, books.negative);
        lab.check_eq(format!("{name}: answered orders that are not there"), 0, books.missing);
        lab.figure(format!("{name}: orders"), acknowledged as f64 / seconds, "orders/s");
        let cells = [acknowledged, books.wrong, books.missing].map(|it| it.to_string());
        rows.push([vec![name.to_owned()], cells.to_vec()].concat());
    }
    let columns = ["store", "answered with 201", "books wrong", "answered and missing"];
    lab.table("Orders under kills", &columns, rows);
    lab.progress(3, 4, "read, compute and write back");
    by_hand(&lab, &fixture, params.clients.min(40)).await
}

/// Who buys, and what there is.
struct Shop {
    customers: Vec<String>,
    products: Vec<(String, i64)>,
}

impl Shop {
    async fn open(client: &Client, clients: u32) -> anyhow::Result<Self> {
        let customers = (0..clients).map(|_| client.customer("GB", START));
        let customers = try_join_all(customers).await?;
        let mut products = Vec::new();
        for stock in [SCARCE, START, START] {
            products.push((client.product(7, stock).await?, stock));
        }
        Ok(Self { customers, products })
    }
}

/// Lets all clients order while the program is killed and started again; the ids of the orders that were answered with 201,
/// by client, and for how long they ordered.
async fn load(
    params: &Params,
    child: &mut Child,
    client: &Client,
    shop: &Shop,
) -> anyhow::Result<(Vec<BTreeSet<String>>, f64)> {
    let (over, begun) = (Arc::new(AtomicBool::new(false)), Instant::now());
    let answered = Arc::new(AtomicU32::new(0));
    let mut clients = JoinSet::new();
    for (n, customer) in shop.customers.iter().cloned().enumerate() {
        let (client, over, answered) = (client.clone(), Arc::clone(&over), Arc::clone(&answered));
        let products: Vec<_> = shop.products.iter().map(|it| it.0.clone()).collect();
        clients.spawn(async move {
            let mut ordered = BTreeSet::new();
            for round in n.. {
                if over.load(Ordering::Relaxed) || ordered.len() >= MOST - 25 {
                    break;
                }
                // Two products in turn: the scarce one, and one of the others.
                let lines = json!({ &products[0]: 1, &products[1 + round % 2]: 1 });
                let lines = if round % 2 == 0 { lines } else { json!({ &products[1]: 2 }) };
                let order = json!({ "customer": customer, "lines": lines });
                let answer = client.target.post("orders", &order).await;
                match answer {
                    Ok(answer) if answer.status() == 201 => {
                        let order: Value = serde_json::from_str(&answer.text().await?)?;
                        ordered.insert(order["id"].as_str().unwrap_or_default().to_owned());
                        answered.fetch_add(1, Ordering::Relaxed);
                    }
                    Ok(_) => {}
                    // The program is being started again.
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
            anyhow::Ok((n, ordered))
        });
    }
    for kill in 1..=params.kills + 1 {
        tokio::time::sleep(Duration::from_secs_f64(params.seconds)).await;
        // However slow the machine, each kill comes while orders are being answered.
        eventually("each client has an order between two kills, on average", async || {
            Ok((answered.load(Ordering::Relaxed) >= kill * params.clients).then_some(()))
        })
        .await?;
        if kill <= params.kills {
            child.kill().await?;
            child.restart().await?;
        }
    }
    over.store(true, Ordering::Relaxed);
    let mut ordered = vec![BTreeSet::new(); shop.customers.len()];
    while let Some(client) = clients.join_next().await {
        let (n, mine) = client.context("a client panicked")??;
        ordered[n] = mine;
    }
    Ok((ordered, begun.elapsed().as_secs_f64()))
}

/// What is wrong in the end.
#[derive(Default)]
struct Books {
    wrong: usize,
    negative: usize,
    missing: usize,
}

impl Books {
    /// What a customer has paid is what its orders cost, and what a product lacks is what was ordered of it.
    async fn read(
        client: &Client,
        shop: &Shop,
        ordered: &[BTreeSet<String>],
    ) -> anyhow::Result<Self> {
        let (mut books, mut sold) = (Self::default(), BTreeMap::<String, i64>::new());
        for (customer, ordered) in shop.customers.iter().zip(ordered) {
            let balance = client.read(&format!("customers/{customer}")).await?;
            let balance = balance["balance_cents"].as_i64().context("no balance")?;
            let orders = client.read(&format!("customers/{customer}/orders")).await?;
            let orders = orders["items"].as_array().context("no orders")?;
            let cost: i64 = orders.iter().filter_map(|it| it["total_cents"].as_i64()).sum();
            books.wrong += usize::from(START - balance != cost);
            books.negative += usize::from(balance < 0);
            let kept: BTreeSet<_> = orders.iter().filter_map(|it| it["id"].as_str()).collect();
            books.missing += ordered.iter().filter(|id| !kept.contains(id.as_str())).count();
            for line in orders.iter().filter_map(|it| it["lines"].as_array()).flatten() {
                let product = line["product"].as_str().unwrap_or_default().to_owned();
                *sold.entry(product).or_default() += line["quantity"].as_i64().unwrap_or_default();
            }
        }
        for (product, start) in &shop.products {
            let stock = client.read(&format!("products/{product}")).await?;
            let stock = stock["stock"].as_i64().context("no stock")?;
            let sold = sold.get(product).copied().unwrap_or_default();
            books.wrong += usize::from(start - stock != sold);
            books.negative += usize::from(stock < 0);
        }
        Ok(books)
    }
}

/// Clients that take one piece after the other, in four ways.
async fn by_hand(lab: &Lab, fixture: &Fixture, clients: u32) -> anyhow::Result<()> {
    const EACH: u32 = 10;
    let all = i64::from(clients * EACH);
    let redis = redis::Client::open(fixture.keys.url())?;
    let mut looker = fixture.keys.connection().await?;
    for (name, way) in [("read and set", Way::ReadAndSet), ("WATCH", Way::Watch)] {
        let key = format!("{}by-hand:{name}", fixture.keys.prefix());
        let () = looker.set(&key, all).await?;
        let takers = (0..clients).map(|_| async {
            // WATCH belongs to a connection, so each client needs its own.
            let mut connection = redis.get_multiplexed_async_connection().await?;
            connection.set_response_timeout(Duration::from_secs(20));
            let mut again = 0;
            for _ in 0..EACH {
                again += take(&mut connection, &key, way).await?;
            }
            anyhow::Ok(again)
        });
        let again: u64 = try_join_all(takers).await?.into_iter().sum();
        let left: i64 = looker.get(&key).await?;
        lost(lab, &format!("Redis, {name}"), left, way == Way::Watch);
        lab.figure(format!("Redis, {name}: attempts that were repeated"), again as f64, "");
    }
    for locked in [false, true] {
        let id = format!("by-hand-{locked}");
        let body = json!({ "name": "Tea", "price_cents": 1, "stock": all });
        let insert = "insert into product_documents (id, body) values ($1, $2)";
        sqlx::query(insert).bind(&id).bind(body).execute(&fixture.pool).await?;
        let takers = (0..5).map(|_| async {
            for _ in 0..all / 5 {
                take_from_document(&fixture.pool, &id, locked).await?;
            }
            anyhow::Ok(())
        });
        try_join_all(takers).await?;
        let left = "select (body ->> 'stock')::bigint from product_documents where id = $1";
        let left = sqlx::query_scalar(left).bind(&id).fetch_one(&fixture.pool).await?;
        let name = if locked { "a document, locked" } else { "a document, not locked" };
        lost(lab, name, left, locked);
    }
    Ok(())
}

/// All were taken, so what is left are pieces that were sold twice.
fn lost(lab: &Lab, name: &str, left: i64, is_right: bool) {
    let check = format!("{name}: pieces that were sold and are still there");
    if is_right {
        lab.check_eq(check, 0, left);
    } else {
        lab.check(check, "1 or more", left, left > 0);
    }
}
