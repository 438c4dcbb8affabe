//! A report needs the data of three services. How does it get them?

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use conform::target::within;
use lab::{Experiment, Lab, Need, Sabotage, Service, fault::Fault, load::median};
use serde_json::{Value, json};

use super::fixture::{Customer, Fixture, Services, Setup, queues};
use crate::module::Module::{self, Catalogue, Orders, Payments};

const DELAY: Duration = Duration::from_millis(1);
/// Only a limit: how long a copy takes is measured.
const SOON: Duration = Duration::from_mins(1);
/// Reports in each way.
const TURNS: u32 = 5;
const WAYS: [&str; 3] = ["loop", "batch", "copy"];
const RENAMED: &str = "after a renaming, the copy has the new name";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Orders of the customer
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(2..=100))]
    orders: u32,
    /// Renamings, to see how old a copy is
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    renamings: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "join",
        "A customer's orders with the names of the products and the payments: in a loop it takes two calls for each order, \
         in a batch three, from copies one. A copy may be old, for as long as an event is on its way",
        &["--orders", "10", "--renamings", "2"],
        run,
    )
    .needs(&[Need::Shared(Service::RabbitMq)])
    .sabotage(Sabotage {
        file: "src/orders.rs",
        replace: "where product_names.version < $3",
        with: "where product_names.version > $3",
        check: RENAMED,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let queues = queues(&lab).await?;
    let proxied = [Catalogue, Payments, Orders];
    let setup = Setup { queues: Some(&queues), proxied: &proxied, ..Setup::default() };
    let services = fixture.services(&setup).await?;
    let customer = services.customer()?;
    customer.fill(10).await?;
    for n in 0..params.orders {
        customer.must_buy(1, 1 + i64::from(n % 10), &format!("join-{n}")).await?;
    }
    let complete = within(SOON, "the copies are complete", async || {
        let copy = report(&customer, "copy").await?;
        let orders = copy.as_array().context("no orders")?;
        let complete = orders.iter().all(|it| it["name"].is_string() && it["paid"] == true);
        Ok(complete.then_some(()))
    });
    complete.await?;
    for module in proxied {
        services.network(module)?.set(Fault::Delay(DELAY));
    }
    let (mut rows, mut reports, mut times) = (Vec::new(), Vec::new(), Vec::new());
    for (n, way) in WAYS.into_iter().enumerate() {
        lab.progress(n as u64, 3, way);
        let (mut turns, mut before) = (Vec::new(), (0, 0));
        // The first turn is not counted: it opens connections.
        for turn in 0..=TURNS {
            before = traffic(&services, &proxied)?;
            let begun = Instant::now();
            let seen = report(&customer, way).await?;
            if turn > 0 {
                turns.push(begun.elapsed().as_secs_f64() * 1e3);
                reports.push(seen);
            }
        }
        let time = median(turns);
        let after = traffic(&services, &proxied)?;
        let (calls, bytes) = (after.0 - before.0, after.1 - before.1);
        rows.push(vec![way.to_owned(), calls.to_string(), bytes.to_string(), format!("{time:.1}")]);
        let orders = u64::from(params.orders);
        let expected = match way {
            "loop" => 1 + 2 * orders,
            "batch" => 3,
            _ => 1,
        };
        lab.check_eq(format!("{way}: calls between services"), expected, calls);
        lab.figure(format!("{way}: bytes between services"), bytes as f64, "bytes");
        lab.figure(format!("{way}: a report, 1 ms of network each way"), time, "ms");
        times.push(time);
    }
    lab.table("One report of three services' data", &["by", "calls", "bytes", "ms"], rows);
    lab.check_eq(
        "the reports in all three ways are the same",
        true,
        reports.iter().all(|it| *it == reports[0]),
    );
    lab.figure("a report in a loop ÷ in a batch", times[0] / times[1], "");
    for module in proxied {
        services.network(module)?.heal();
    }
    let mut ages = Vec::new();
    for n in 0..params.renamings {
        let name = format!("renamed {n}");
        customer.put("/products/1", &json!({ "name": name, "cents": 1_001 })).await?;
        let begun = Instant::now();
        let renamed = within(SOON, "the copy has the new name", async || {
            let copy = report(&customer, "copy").await?;
            let orders = copy.as_array().context("no orders")?;
            let known = orders.iter().filter(|it| it["product"] == 1).all(|it| it["name"] == name);
            Ok(known.then_some(()))
        });
        if renamed.await.is_err() {
            break;
        }
        ages.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    lab.check_eq(RENAMED, params.renamings as usize, ages.len());
    if !ages.is_empty() {
        lab.figure("a copy is old for", median(ages), "ms");
    }
    Ok(())
}

async fn report(customer: &Customer, way: &str) -> anyhow::Result<Value> {
    let path = format!("/customers/1/history?by={way}");
    let report = customer.must_get(&path).await?;
    ensure!(report["orders"].is_array(), "{report}");
    Ok(report["orders"].clone())
}

/// Calls and bytes between services so far.
fn traffic(services: &Services, proxied: &[Module]) -> anyhow::Result<(u64, u64)> {
    let (mut calls, mut bytes) = (0, 0);
    for module in proxied {
        let network = services.network(*module)?;
        calls += network.messages();
        bytes += network.bytes().0 + network.bytes().1;
    }
    Ok((calls, bytes))
}
