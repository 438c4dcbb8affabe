//! What does a join cost, and what does it save? A customer's page with its orders and lines, and a question the other way.

use std::time::Instant;

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, Target, fault::Proxy, load::median, report::number};
use redis::AsyncCommands;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::{
    compare::{grain, lookups},
    fixture::{Fixture, MODELS, customer, make, one_of_each},
};
use crate::{
    documents,
    entity::Kind,
    order::Order,
    store::{Model, Store},
    tables,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Orders of each customer
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(2..=100))]
    orders: u32,
    /// Pages of each kind, in turns
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    pages: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "joins",
        "The page of a customer is one message to the store by a join, by documents that hold their lines, and two by a list \
         of keys, however many orders there are; by lookups it is one for each order more. Who bought a product takes the \
         tables and documents one statement, and Redis all orders",
        &["--orders", "6", "--pages", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/tables.rs",
        replace: "order by orders.id desc",
        with: "order by orders.id",
        check: "pages that differ from the others",
    })
}

/// Lines of an order, for three customers.
const LINES: [usize; 3] = [1, 5, 20];

/// A store behind a proxy that counts.
struct Counted {
    name: &'static str,
    store: Store,
    proxy: Proxy,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let products: Vec<_> = (0..20).map(|n| format!("p{n:02}")).collect();
    let mut stores = Vec::new();
    for (n, (model, name)) in (0..).zip(MODELS) {
        lab.progress(n, 4, format!("orders are placed with {name}"));
        let is_redis = model == Model::KeyValue;
        let url = if is_redis { fixture.keys.url() } else { fixture.database.url() };
        let proxy = Proxy::to_url(url).await?;
        let through = proxy.url(url)?;
        let store = fixture.store_through(model, &through, &through)?;
        for id in &products {
            let body = json!({ "name": format!("Product {id}"), "price_cents": 100 });
            make(&store, Kind::Product, id, body, 1_000_000).await?;
        }
        for lines in LINES {
            let id = format!("lines-{lines}");
            customer(&store, &id, "GB", 1_000_000_000).await?;
            for _ in 0..params.orders {
                store.place(&one_of_each(&id, &products[..lines])).await?;
            }
        }
        stores.push(Counted { name, store, proxy });
    }
    lab.progress(3, 4, "pages are read");
    pages(&params, &lab, &fixture, &stores).await?;
    by_id(&params, &lab, &fixture).await?;
    against_the_grain(&lab, &fixture).await
}

/// An order without what differs from store to store: its id and its time.
fn content(orders: Vec<Order>) -> Vec<String> {
    let one = |it: Order| format!("{} {} {:?}", it.customer, it.total_cents, it.lines);
    orders.into_iter().map(one).collect()
}

async fn pages(
    params: &Params,
    lab: &Lab,
    fixture: &Fixture,
    stores: &[Counted],
) -> anyhow::Result<()> {
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let mut lookup = PgConnection::connect(&proxy.url(fixture.database.url())?).await?;
    let (mut rows, mut differ) = (Vec::new(), 0);
    for lines in LINES {
        let id = format!("lines-{lines}");
        let mut times = vec![Vec::new(); 4];
        let (mut counts, mut newest) = (vec![(0, 0); 4], Vec::new());
        for page in 0..params.pages {
            for (n, Counted { store, proxy, .. }) in stores.iter().enumerate() {
                let (messages, bytes) = (proxy.messages(), proxy.bytes().1);
                let begun = Instant::now();
                let orders = store.orders_of(&id).await?;
                times[n].push(begun.elapsed().as_secs_f64() * 1e3);
                counts[n] = (proxy.messages() - messages, proxy.bytes().1 - bytes);
                if page == 0 {
                    // Their ids rise with time, in every store.
                    let is_sorted = orders.is_sorted_by(|one, next| one.id > next.id);
                    differ += usize::from(!is_sorted);
                    newest.push(content(orders));
                }
            }
            let (messages, bytes) = (proxy.messages(), proxy.bytes().1);
            let begun = Instant::now();
            let orders = lookups::orders_of(&mut lookup, &id).await?;
            times[3].push(begun.elapsed().as_secs_f64() * 1e3);
            counts[3] = (proxy.messages() - messages, proxy.bytes().1 - bytes);
            if page == 0 {
                newest.push(content(orders));
            }
        }
        differ += newest.iter().filter(|page| **page != newest[3]).count();
        for (n, name) in stores.iter().map(|it| it.name).chain(["tables, by lookups"]).enumerate() {
            let ((messages, bytes), ms) = (counts[n], median(times[n].clone()));
            let few = if n == 3 { u64::from(params.orders) + 1 } else { 3 };
            let check = format!("{name}, {lines} lines: messages for the last page");
            if n == 3 {
                lab.check(check, format!("{few} or more"), messages, messages >= few);
            } else {
                lab.check(check, "1 to 3", messages, (1..=few).contains(&messages));
            }
            lab.figure(format!("{name}, {lines} lines: a page, median"), ms, "ms");
            lab.figure(format!("{name}, {lines} lines: bytes of a page"), bytes as f64, "bytes");
            rows.push(vec![
                name.into(),
                lines.to_string(),
                messages.to_string(),
                bytes.to_string(),
                number(ms),
            ]);
        }
        let ratio = median(times[3].clone()) / median(times[0].clone());
        lab.figure(format!("{lines} lines: lookups ÷ one join, medians"), ratio, "");
        let ratio = median(times[0].clone()) / median(times[1].clone());
        lab.figure(format!("{lines} lines: one join ÷ documents, medians"), ratio, "");
    }
    lab.check_eq("pages that differ from the others", 0, differ);
    let columns = ["store", "lines in each order", "messages", "bytes", "ms, median"];
    lab.table("The page of a customer", &columns, rows);
    Ok(())
}

/// What the port costs: a customer through it, and by the statement or the command alone.
async fn by_id(params: &Params, lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let id = format!("lines-{}", LINES[0]);
    let mut database = PgConnection::connect(fixture.database.url()).await?;
    let mut redis = fixture.keys.connection().await?;
    let key = format!("{}customer:{id}", fixture.keys.prefix());
    let mut medians = Vec::new();
    for (model, name) in MODELS {
        let store = fixture.store(model)?;
        let sql = if model == Model::Documents { &documents::SQL } else { &tables::SQL };
        let (mut port, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..params.pages {
            let begun = Instant::now();
            store.get(Kind::Customer, &id, None).await?;
            port.push(begun.elapsed().as_secs_f64() * 1e3);
            let begun = Instant::now();
            if model == Model::KeyValue {
                let _: Vec<String> = redis.hmget(&key, &["body", "amount"]).await?;
            } else {
                let find = sqlx::query_scalar::<_, Value>(sql.find[0]).bind(&id);
                find.fetch_one(&mut database).await?;
            }
            bare.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let (port, bare) = (median(port), median(bare));
        lab.figure(format!("{name}: a customer by id, median"), port, "ms");
        let figure =
            format!("{name}: a customer by id: the statement alone ÷ through the port, medians");
        lab.figure_with_target(figure, bare / port, "", Target::AtLeast(0.8));
        medians.push(port);
    }
    lab.figure("a customer by id: tables ÷ key-value, medians", medians[0] / medians[2], "");
    Ok(())
}

/// Who bought the last product, which only one customer has ordered.
async fn against_the_grain(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let mut redis = fixture.keys.connection().await?;
    let prefix = fixture.keys.prefix();
    let (mut times, mut found, mut bytes) = (vec![Vec::new(); 3], Vec::new(), 0);
    for _ in 0..5 {
        found.clear();
        let begun = Instant::now();
        found.push(grain::in_tables(&fixture.pool, "p19").await?);
        times[0].push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        found.push(grain::in_documents(&fixture.pool, "p19").await?);
        times[1].push(begun.elapsed().as_secs_f64() * 1e3);
        let begun = Instant::now();
        let (buyers, read) = grain::under_keys(&mut redis, prefix, "p19").await?;
        times[2].push(begun.elapsed().as_secs_f64() * 1e3);
        found.push(buyers);
        bytes = read;
    }
    for ((_, name), (found, times)) in MODELS.into_iter().zip(found.iter().zip(times)) {
        let buyers = found.iter().cloned().collect::<Vec<_>>().join(" ");
        lab.check_eq(format!("{name}: who bought the product"), "lines-20".to_owned(), buyers);
        lab.figure(format!("{name}: who bought it, median"), median(times), "ms");
    }
    lab.figure("key-value: who bought it: bytes of orders that were read", bytes as f64, "bytes");
    found.first().context("no answer").map(drop)
}
