//! Pricing in Python takes the place of ours. Does anybody notice?

use std::{process::Stdio, time::Duration};

use anyhow::{Context, ensure};
use lab::{Experiment, Lab, Sabotage, skip, stack::workspace};
use serde_json::json;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::compare::contract::broken;
use super::fixture::{Fixture, Setup};
use crate::module::Module::{Catalogue, Orders, Payments, Pricing};

const BROKEN: &str = "promises that pricing in Python does not keep";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Products whose pages are compared
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    products: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "polyglot",
        "Pricing in Python, with nothing but its standard library, keeps the same contract and takes the place of ours: pages \
         and orders are the same, and the trace goes on through it",
        &["--products", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/peer.rs",
        replace: "pub const VERSION: &str = \"1\";",
        with: "pub const VERSION: &str = \"2\";",
        check: BROKEN,
    })
}

/// The program in `examples/microservices/`, on a free port; and its address. Nothing if there is no Python. A program that
/// does not start is an error, and no reason to skip.
async fn python() -> anyhow::Result<Option<(Child, String)>> {
    let version = Command::new("python3").arg("--version").stdin(Stdio::null()).output().await;
    if !version.is_ok_and(|it| it.status.success()) {
        return Ok(None);
    }
    let file = workspace().join("examples/microservices/pricing.py");
    let mut command = Command::new("python3");
    command.arg(file).arg("0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut process = command.kill_on_drop(true).spawn()?;
    let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
    let line = timeout(Duration::from_secs(30), lines.next_line()).await;
    let line = line.context("it did not listen within 30 s")??.unwrap_or_default();
    let url =
        line.strip_prefix("listening on ").context("pricing.py does not say where it listens")?;
    Ok(Some((process, url.to_owned())))
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let Some((_process, url)) = python().await? else {
        return Err(skip("there is no Python 3 here"));
    };
    let fixture = Fixture::of(&lab).await?;
    let services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    let products = i64::from(params.products);
    customer.fill(products).await?;
    let pages = async || {
        let mut pages = Vec::new();
        for id in 1..=products {
            pages.push(customer.must_get(&format!("/products/{id}")).await?);
        }
        anyhow::Ok(pages)
    };
    let ours = pages().await?;
    let our_order = customer.must_buy(1, 1, "ours").await?["cents"].clone();
    let found = broken(Pricing, &url).await?;
    for promise in &found {
        lab.text(promise);
    }
    lab.check_eq(BROKEN, 0, found.len());
    customer.put("/admin/services/pricing", &json!([url])).await?;
    let theirs = pages().await.unwrap_or_default();
    lab.check_eq("pages are the same with either", true, ours == theirs);
    // The orders are told where pricing is when they start.
    let mut orders = fixture.service(Orders, false).args(&["--call-timeout-ms", "5000"]);
    for (name, url) in [
        ("catalogue", services.url(Catalogue)),
        ("pricing", url),
        ("payments", services.url(Payments)),
    ] {
        orders = orders.arg("--at").arg(format!("{name}={url}"));
    }
    let orders = orders.args(&["--timeout-ms", "20000"]).start().await?;
    customer.put("/admin/services/orders", &json!([orders.url()])).await?;
    let their_order = customer.must_buy(1, 1, "theirs").await.unwrap_or_default()["cents"].clone();
    lab.check_eq("an order costs the same with either", our_order, their_order);
    let trace = customer.traced("/products/1", 0x00ab_cdef).await?;
    let spans = trace["spans"].as_array().context("no spans")?;
    ensure!(!spans.is_empty(), "{trace}");
    let through = spans.iter().any(|it| it["service"] == "pricing in Python");
    lab.check_eq("the trace has a span of pricing in Python", true, through);
    Ok(())
}
