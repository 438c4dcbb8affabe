//! A new version takes the place of an old one, under load. Who notices?

use std::time::Duration;

use anyhow::ensure;
use lab::{Experiment, Lab, Sabotage, serve::here};
use serde_json::json;
use tokio::time::sleep;

use super::compare::contract::broken;
use super::compare::pricing::{NONSENSE, Other};
use super::fixture::{Fixture, Services, Setup};
use super::load::{Load, failures};
use crate::module::Module::{Gateway, Pricing};

const RATE: f64 = 20.0;
/// A page that comes late has not failed.
const PATIENCE: Duration = Duration::from_secs(20);
/// Of a load that goes on as long as a deployment takes, also on a busy machine.
const LONGEST: Duration = Duration::from_mins(5);
const FAILED: &str = "old and new side by side: requests that failed";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds of load for each of the two deployments: four pauses, beside what its steps take
    #[arg(long, default_value_t = 3.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "deploy",
        "A service is replaced under load while old and new run side by side, and no request fails. Stopped first and started \
         then, it fails requests. The contract test stops a version that means another unit; without it customers see wrong \
         prices. Answers that are none reach no customer",
        &["--seconds", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/peer.rs",
        replace: "*self.urls.write().unwrap_or_else(PoisonError::into_inner) = urls;",
        with: "drop(urls);",
        check: FAILED,
    })
}

/// Tells the gateway where pricing is.
async fn moved(services: &Services, urls: &[&str]) -> anyhow::Result<()> {
    services.customer()?.put("/admin/services/pricing", &json!(urls)).await.map(drop)
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut services = fixture.services(&Setup::default()).await?;
    let customer = services.customer()?;
    customer.fill(3).await?;
    // Within it some requests come.
    let pause = Duration::from_secs_f64(params.seconds / 4.0);
    let address = services.url(Gateway).trim_start_matches("http://").to_owned();
    let load =
        || Load::begin(&address, RATE, LONGEST, PATIENCE, |n| format!("/products/{}", 1 + n % 3));
    let old = services.url(Pricing);
    // The orders ask pricing too, and are told in the same way where there is a registry. Here only pages are asked for.
    lab.progress(0, 3, "old and new side by side");
    let next = here(Other::Next.router()).await?;
    let next_url = format!("http://{}", next.host);
    let found = broken(Pricing, &next_url).await?;
    lab.check_eq("the next version: promises that the contract test finds broken", 0, found.len());
    let under_load = load();
    sleep(pause).await;
    moved(&services, &[&old, &next_url]).await?;
    sleep(pause).await;
    moved(&services, &[&next_url]).await?;
    // Whoever has just chosen the old one still finds it (a `preStop` hook does this in Kubernetes).
    sleep(Duration::from_millis(200)).await;
    services.child(Pricing)?.stop().await?;
    sleep(pause).await;
    let failed = failures(&under_load.stop(PATIENCE).await).unwrap_or(usize::MAX);
    lab.check_eq(FAILED, 0, failed);
    lab.progress(1, 3, "stopped first, started then");
    services.child(Pricing)?.restart().await?;
    moved(&services, &[&old]).await?;
    let under_load = load();
    sleep(pause).await;
    services.child(Pricing)?.stop().await?;
    // Most programs need longer to start than ours.
    sleep(pause).await;
    services.child(Pricing)?.restart().await?;
    sleep(pause).await;
    let seen = under_load.stop(PATIENCE).await;
    let naive = failures(&seen).unwrap_or(0);
    lab.check("stopped first, started then: requests that failed", "1 or more", naive, naive >= 1);
    lab.figure(
        "stopped first, started then: requests that failed",
        naive as f64 / seen.len() as f64 * 100.0,
        "%",
    );
    lab.progress(2, 3, "versions that break the contract");
    let mut rows = Vec::new();
    for other in [Other::OtherUnit, Other::OtherRounding] {
        let wrong = here(other.router()).await?;
        let url = format!("http://{}", wrong.host);
        let found = broken(Pricing, &url).await?;
        moved(&services, &[&url]).await?;
        whole(&services).await?;
        let cents = customer.must_get("/products/1").await?["cents"].clone();
        rows.push(vec![format!("{other:?}"), found.len().to_string(), cents.to_string()]);
        if other == Other::OtherUnit {
            let check = "another unit: promises that the contract test finds broken, one or more";
            lab.check(check, "1 or more", found.len(), !found.is_empty());
            lab.check_eq(
                "another unit, deployed without the test: the price that a customer sees",
                "100100".to_owned(),
                cents.to_string(),
            );
        } else {
            // Deployed it would show only with three or more.
            lab.check("another rounding: the same", "1 or more", found.len(), !found.is_empty());
        }
        moved(&services, &[&old]).await?;
    }
    let (mut refused, mut stopped) = (0, 0);
    for other in NONSENSE {
        let wrong = here(other.router()).await?;
        let url = format!("http://{}", wrong.host);
        let found = broken(Pricing, &url).await?;
        stopped += usize::from(!found.is_empty());
        moved(&services, &[&url]).await?;
        let answer = customer.get("/products/1").await?;
        let status = answer.status().as_u16();
        // Any other status says that the gateway itself failed.
        refused += usize::from(status == 503);
        if other == Other::WrongContract {
            let topology = customer.must_get("/topology").await?;
            let mut modules = topology["modules"].as_array().into_iter().flatten();
            let healthy = modules.any(|it| it["module"] == "pricing" && it["healthy"] == true);
            lab.check_eq("another contract: the topology says that it is healthy", false, healthy);
        }
        rows.push(vec![format!("{other:?}"), found.len().to_string(), format!("status {status}")]);
        moved(&services, &[&old]).await?;
        whole(&services).await?;
    }
    lab.table(
        "Other programs in the place of pricing",
        &["program", "broken promises", "a customer sees"],
        rows,
    );
    let check = "answers that are none, of five programs: pages that say so with 503";
    lab.check_eq(check, NONSENSE.len(), refused);
    let check = "answers that are none: programs that the contract test stops";
    lab.check_eq(check, NONSENSE.len(), stopped);
    Ok(())
}

/// Waits until pages are shown: a breaker may be open.
async fn whole(services: &Services) -> anyhow::Result<()> {
    let customer = services.customer()?;
    let shown = conform::target::eventually("a page is shown", async || {
        Ok((customer.get("/products/2").await?.status() == 200).then_some(()))
    });
    shown.await?;
    ensure!(customer.get("/products/1").await?.status() == 200, "a page is shown");
    Ok(())
}
