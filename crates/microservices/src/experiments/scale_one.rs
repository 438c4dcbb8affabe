//! Only pricing is hot. What does it take to have more of it?

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, child::Child, fault::Proxy};
use serde_json::json;

use super::fixture::{Customer, Fixture, Setup};
use crate::module::Module::{self, Gateway, Pricing};

const SHARE: &str = "calls that the instance with fewer of them got, of all";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Pages that each program makes before its memory is read
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    pages: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "scale-one",
        "Pricing alone can have a second instance, which gets half of the calls. In memory a shop as small as this \
         saves nothing by it: six processes need more than twice the memory of one monolith to begin with",
        &["--pages", "60"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/peer.rs",
        replace: "let next = self.next.fetch_add(1, Relaxed);",
        with: "let next = self.next.load(Relaxed);",
        check: SHARE,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let monolith = fixture.monolith().args(&["--timeout-ms", "20000"]).start().await?;
    let shop = Customer::of(monolith.url())?;
    let mut services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    let second = fixture.service(Pricing, false).start().await?;
    let instances =
        [Proxy::to(services.child(Pricing)?.address()).await?, Proxy::to(second.address()).await?];
    let urls = instances.each_ref().map(|it| format!("http://{}", it.address()));
    customer.put("/admin/services/pricing", &json!(urls)).await?;
    for customer in [&shop, &customer] {
        customer.fill(1).await?;
        for page in 0..params.pages {
            lab.progress(page.into(), params.pages.into(), "pages");
            customer.must_get("/products/1").await?;
        }
    }
    let calls = instances.each_ref().map(Proxy::messages);
    let (least, all) = (calls[0].min(calls[1]) as f64, (calls[0] + calls[1]) as f64);
    let share = least / all.max(1.0);
    lab.check(SHARE, "0.4 or more", format!("{share:.2}"), share >= 0.4);
    let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    let whole = mebibytes(monolith.memory().await?);
    let pricing = mebibytes(second.memory().await?);
    let (whole_own, mut sum, mut sum_own) = (own(&monolith), 0.0, Some(0.0));
    let row = |name: &str, memory: f64, own: Option<u64>| {
        let own = own.map_or_else(|| "unknown".to_owned(), |it| format!("{:.1}", mebibytes(it)));
        vec![name.to_owned(), format!("{memory:.1}"), own]
    };
    let mut rows = vec![row("the monolith", whole, whole_own)];
    for module in [&Module::SERVICES[..], &[Gateway]].concat() {
        let child = services.children.get(&module).context("it is running")?;
        let (memory, own) = (mebibytes(child.memory().await?), own(child));
        sum += memory;
        sum_own = sum_own.zip(own).map(|(sum, own)| sum + mebibytes(own));
        rows.push(row(module.name(), memory, own));
    }
    lab.table("Memory of each process", &["process", "MiB", "without files"], rows);
    let check = "all six processes ÷ one monolith, memory";
    lab.check(check, "2 or more", format!("{:.1}", sum / whole), sum / whole >= 2.0);
    lab.figure("the monolith", whole, "MiB");
    lab.figure("one more instance of pricing", pricing, "MiB");
    lab.figure("one more instance of pricing ÷ one more monolith, memory", pricing / whole, "");
    lab.figure(check, sum / whole, "");
    if let Some((sum, whole)) = sum_own.zip(whole_own) {
        let name = "all six processes ÷ one monolith, memory without the program's file";
        lab.figure(name, sum / mebibytes(whole), "");
    }
    Ok(())
}

/// The memory that a process shares with no other, in bytes: the program itself is in memory once for all processes of one
/// machine. Nothing where there is no `/proc`.
fn own(child: &Child) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.pid()?)).ok()?;
    let own = status.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    Some(own.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1_024)
}
