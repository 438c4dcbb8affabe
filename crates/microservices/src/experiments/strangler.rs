//! Routes move from the monolith to the services, one by one, and back. Does a customer notice?

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::Context;
use conform::target::within;
use lab::{Experiment, Lab, Sabotage, child::Child, serve::here};
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::sleep};

use super::compare::pricing::Other;
use super::fixture::{Customer, Fixture, Setup};
use super::load::{Load, failures};
use crate::module::Module::Gateway;

const ROUTES: [&str; 3] = ["products", "orders", "customers"];
const SOON: Duration = Duration::from_mins(1);
/// The customer who buys while routes move.
const BUYER: i64 = 2;
const PLANTED: &str = "a planted difference is found while it is only shadowed";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Answers to compare before a route moves
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    compare: u32,
    /// Requests a second
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(10..=1_000))]
    rate: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "strangler",
        "Behind a strangler, each route is shadowed, moved to the services, moved back and moved again while customers read and \
         buy, and no request fails and no order is lost or made twice. A difference that was planted is found before any customer sees it",
        &["--compare", "4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/shop.rs",
        replace: "cents: quote.cents",
        with: "cents: quote.cents + i64::from(!self.peers.is_empty())",
        check: "products: answers that differ",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let monolith = fixture.monolith().args(&["--timeout-ms", "20000"]).start().await?;
    let services = fixture.services(&Setup { shared: true, ..Setup::default() }).await?;
    let front = Child::serve("microservices");
    let front = front.args(&["--legacy", monolith.url(), "--modern", &services.url(Gateway)]);
    let front = front.start().await?;
    let customer = Customer::of(front.url())?;
    customer.fill(3).await?;
    let order = customer.must_buy(1, 1, "strangler").await?;
    let order = order["id"].as_str().context("an id")?.to_owned();
    let path = move |n: u64| match n % 3 {
        0 => format!("/products/{}", 1 + n / 3 % 3),
        1 => format!("/orders/{order}"),
        _ => "/customers/1/history".to_owned(),
    };
    // It goes on as long as the moves take.
    let rate = f64::from(params.rate);
    let load = Load::begin(front.address(), rate, Duration::from_mins(5), SOON, path);
    // Another customer, so that no history changes while it is compared. Dropped with this function, which ends it.
    let (mut buying, over) = (JoinSet::new(), Arc::new(AtomicBool::new(false)));
    buying.spawn(buy(customer.clone(), Arc::clone(&over)));
    let mut rows = Vec::new();
    for (n, route) in ROUTES.into_iter().enumerate() {
        lab.progress(n as u64, 3, format!("{route} moves"));
        set(&customer, route, "shadow").await?;
        let seen = compared(&customer, route, params.compare).await?;
        for mode in ["modern", "legacy", "modern"] {
            set(&customer, route, mode).await?;
            customer.must_get("/products/1").await?;
        }
        let different = seen["different"].as_u64().context("a number")?;
        lab.check_eq(format!("{route}: answers that differ"), 0, different);
        rows.push(vec![route.to_owned(), seen["same"].to_string(), different.to_string()]);
    }
    let seen = load.stop(SOON).await;
    lab.check_eq(
        "requests that failed while routes moved",
        0,
        failures(&seen).unwrap_or(usize::MAX),
    );
    lab.figure("requests while routes moved", seen.len() as f64, "");
    over.store(true, Relaxed);
    let (placed, refused) = buying.join_next().await.context("nobody bought")??;
    lab.check("orders that were placed while routes moved", "1 or more", placed, placed >= 1);
    lab.check_eq("orders that failed while routes moved", 0, refused);
    let kept = "select count(*) from orders.orders where customer = $1";
    let kept = sqlx::query_scalar::<_, i64>(kept).bind(BUYER);
    let kept = kept.fetch_one(&fixture.whole.pool().await?).await?;
    lab.check_eq("orders that are there, of those that were placed", placed, kept);
    // A new pricing, with a mistake that one looks for.
    set(&customer, "products", "legacy").await?;
    let wrong = here(Other::OtherUnit.router()).await?;
    let urls = json!([format!("http://{}", wrong.host)]);
    services.customer()?.put("/admin/services/pricing", &urls).await?;
    set(&customer, "products", "shadow").await?;
    let before = routes(&customer).await?["products"]["different"].as_u64().unwrap_or(0);
    let wrong_prices = AtomicU64::new(0);
    let found = within(SOON, "the difference is found", async || {
        let cents = customer.must_get("/products/1").await?["cents"].clone();
        wrong_prices.fetch_add(u64::from(cents != 1_001), Relaxed);
        let now = routes(&customer).await?["products"]["different"].as_u64().unwrap_or(0);
        Ok((now > before).then_some(()))
    });
    let found = found.await.is_ok();
    lab.check_eq(PLANTED, true, found);
    lab.check_eq("customers who saw it", 0, wrong_prices.into_inner());
    lab.table("Compared before they moved", &["route", "same", "different"], rows);
    let example = routes(&customer).await?["products"]["example"].clone();
    lab.text(format!("What was found: {}", example.as_str().unwrap_or("nothing")));
    Ok(())
}

/// Buys, sending each order twice under its key, until it is told to end. How many orders were placed, and how many were not or
/// came to be two.
async fn buy(customer: Customer, over: Arc<AtomicBool>) -> (i64, i64) {
    let (mut placed, mut refused) = (0, 0);
    while !over.load(Relaxed) {
        let key = format!("moving-{}", placed + refused);
        let first = customer.must_buy(BUYER, 1, &key).await;
        match (first, customer.must_buy(BUYER, 1, &key).await) {
            (Ok(first), Ok(second)) if first["id"] == second["id"] => placed += 1,
            _ => refused += 1,
        }
        sleep(Duration::from_millis(50)).await;
    }
    (placed, refused)
}

async fn set(customer: &Customer, route: &str, mode: &str) -> anyhow::Result<()> {
    customer.put(&format!("/routes/{route}"), &json!({ "mode": mode })).await.map(drop)
}

async fn routes(customer: &Customer) -> anyhow::Result<Value> {
    customer.must_get("/routes").await
}

/// Waits until so many answers of a route were compared.
async fn compared(customer: &Customer, route: &str, count: u32) -> anyhow::Result<Value> {
    within(SOON, "enough answers are compared", async || {
        let route = routes(customer).await?[route].clone();
        let both = route["same"].as_u64().zip(route["different"].as_u64());
        let (same, different) = both.context("no counts")?;
        Ok((same + different >= u64::from(count)).then_some(route))
    })
    .await
}
