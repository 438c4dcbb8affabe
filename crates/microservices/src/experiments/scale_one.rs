//! Only pricing is hot. What does it take to have more of it?

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, Target, fault::Proxy};
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
        "Pricing alone can have a second instance, which gets half of the calls. It needs less memory than a second monolith; \
         but six processes need several times the memory of one monolith to begin with",
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
    let monolith = fixture.monolith().start().await?;
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
    let mut sum = 0.0;
    let mut rows = vec![vec!["the monolith".to_owned(), format!("{whole:.1}")]];
    for module in [&Module::SERVICES[..], &[Gateway]].concat() {
        let child = services.children.get(&module).context("it is running")?;
        let memory = mebibytes(child.memory().await?);
        sum += memory;
        rows.push(vec![module.name().to_owned(), format!("{memory:.1}")]);
    }
    lab.table("Memory of each process", &["process", "MiB"], rows);
    lab.figure("the monolith", whole, "MiB");
    lab.figure("one more instance of pricing", pricing, "MiB");
    lab.figure_with_target(
        "one more instance of pricing ÷ one more monolith, memory",
        pricing / whole,
        "",
        Target::AtMost(0.9),
    );
    lab.figure("all six processes ÷ one monolith, memory", sum / whole, "");
    Ok(())
}
