//! One module has a bug. How much of the shop does it take with it?

use std::time::Duration;

use anyhow::Context;
use conform::target::within;
use lab::{Experiment, Lab, Need, Sabotage, child::Child};
use rustix::process::{Pid, Resource, Rlimit, prlimit};

use super::fixture::{Customer, Fixture, Setup};
use crate::module::Module::Recommendations;

const PAGES: &str = "as a service: pages of ten after the leak";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Memory that a process may have beyond what it has when it starts, in MiB: as a container's limit
    #[arg(long, default_value_t = 96, value_parser = clap::value_parser!(u64).range(32..=512))]
    room: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "blast-radius",
        "A leak in recommendations, or a panic that aborts, ends the whole monolith. As a service it ends only the \
         recommendations. A panic that unwinds ends neither: only the request that met it",
        &["--room", "64"],
        run,
    )
    .needs(&[Need::Linux])
    .sabotage(Sabotage {
        file: "src/shop.rs",
        replace: "if !self.patience.no_fallback => {",
        with: "if self.patience.no_fallback => {",
        check: PAGES,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let words = ["--with-bugs", "--timeout-ms", "20000"];
    let mut monolith = fixture.monolith().args(&words).start().await?;
    let shop = Customer::of(monolith.url())?;
    shop.fill(1).await?;
    let bugs = ["--with-bugs"];
    let setup = Setup { recommendations: &bugs, ..Setup::default() };
    let mut services = fixture.services(&setup).await?;
    let (customer, buggy) = (services.customer()?, services.url(Recommendations));
    let buggy = Customer::of(&buggy)?;
    customer.fill(1).await?;
    let mut rows = Vec::new();
    lab.progress(0, 3, "a panic that unwinds");
    let status = shop.post("/bug/panic").await;
    lab.check_eq("monolith: a panic that unwinds is answered with", 500, status.unwrap_or(0));
    let (alone, apart) = (pages(&shop).await, {
        buggy.post("/bug/panic").await;
        pages(&customer).await
    });
    lab.check_eq("monolith: pages of ten after a panic that unwinds", 10, alone);
    lab.check_eq("as a service: pages of ten after a panic that unwinds", 10, apart);
    rows.push(vec!["a panic that unwinds".to_owned(), alone.to_string(), apart.to_string()]);
    lab.progress(1, 3, "a panic that aborts");
    let (monolith_ends, service_ends) =
        (shop.post("/bug/abort").await, buggy.post("/bug/abort").await);
    let (alone, apart) = (pages(&shop).await, pages(&customer).await);
    lab.check_eq("monolith: pages of ten after a panic that aborts", 0, alone);
    lab.check_eq("as a service: pages of ten after a panic that aborts", 10, apart);
    lab.check_eq(
        "both processes ended without an answer",
        true,
        monolith_ends.is_none() && service_ends.is_none(),
    );
    rows.push(vec!["a panic that aborts".to_owned(), alone.to_string(), apart.to_string()]);
    lab.progress(2, 3, "a leak");
    monolith.restart().await?;
    services.child(Recommendations)?.restart().await?;
    whole(&customer).await?;
    limited(&monolith, params.room)?;
    limited(services.child(Recommendations)?, params.room)?;
    let (leaks, service_leaks) = (leak(&shop).await, leak(&buggy).await);
    let (alone, apart) = (pages(&shop).await, pages(&customer).await);
    lab.check_eq("monolith: pages of ten after the leak", 0, alone);
    lab.check_eq(PAGES, 10, apart);
    let order = customer.buy(1, 1, "after-the-leak").await?.status().as_u16();
    lab.check_eq("as a service: an order after the leak", 201, order);
    rows.push(vec!["a leak".to_owned(), alone.to_string(), apart.to_string()]);
    lab.table(
        "Pages of ten that are shown",
        &["after", "by the monolith", "by the services"],
        rows,
    );
    lab.figure("leaks of 4 MiB until the monolith ended", leaks.into(), "");
    lab.figure("leaks of 4 MiB until the service ended", service_leaks.into(), "");
    Ok(())
}

/// How many of ten pages are shown.
async fn pages(customer: &Customer) -> u32 {
    let mut shown = 0;
    for _ in 0..10 {
        shown += u32::from(customer.get("/products/1").await.is_ok_and(|it| it.status() == 200));
    }
    shown
}

/// Waits until nothing is missing on the page: a breaker lets somebody try after a moment.
async fn whole(customer: &Customer) -> anyhow::Result<()> {
    within(Duration::from_secs(30), "the recommendations are back", async || {
        let page = customer.must_get("/products/1").await.unwrap_or_default();
        Ok(page["recommendations"].is_array().then_some(()))
    })
    .await
}

/// It may have so much memory and no more. What it asks for beyond that it does not get, and Rust's programs end then.
fn limited(child: &Child, room: u64) -> anyhow::Result<()> {
    let pid = child.pid().context("it has ended")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let size = status.lines().find_map(|line| line.strip_prefix("VmSize:")).context("no size")?;
    let kibibytes: u64 = size.trim().trim_end_matches(" kB").parse()?;
    let limit = Some(kibibytes * 1_024 + (room << 20));
    let pid = Pid::from_raw(i32::try_from(pid)?);
    prlimit(pid, Resource::As, Rlimit { current: limit, maximum: limit })?;
    Ok(())
}

/// Leaks until the process is gone; how often. More than any limit lets it, and never without an end.
async fn leak(buggy: &Customer) -> u32 {
    for leaks in 0..200 {
        if buggy.post("/bug/leak").await.is_none() {
            return leaks;
        }
    }
    200
}
