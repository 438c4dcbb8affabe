//! Each of five services is up most of the time. How often is the shop?

use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Customer, Fixture, Setup};
use crate::module::Module::{self, Catalogue, Gateway, Orders, Payments, Pricing, Recommendations};

/// What an order needs. The first changes most often.
const CHAIN: [Module; 5] = [Pricing, Catalogue, Payments, Orders, Gateway];
/// A service that is back is asked at once: each combination is seen as it is.
const PLAIN: [&str; 1] = ["--no-breaker"];
const FALLBACK: &str =
    "with a fallback: pages of ten that are shown while the recommendations are down";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Requests in each combination
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    requests: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "availability",
        "An order needs five services, and is placed only if all five are up: at 99.9 % each, 99.5 % of the time. A page needs \
         three of them, and without a fallback the recommendations too",
        &["--requests", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/shop.rs",
        replace: "if !self.patience.no_fallback => {",
        with: "if self.patience.no_fallback => {",
        check: FALLBACK,
    })
}

/// How often something goes well if each service is up this often, from the combinations in which it did.
fn availability(good: &[bool; 32], each: f64) -> f64 {
    let chance = |up: usize| -> f64 {
        (0..5).map(|bit| if up >> bit & 1 == 1 { each } else { 1.0 - each }).product()
    };
    good.iter().enumerate().filter(|(_, good)| **good).map(|(up, _)| chance(up)).sum()
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut services = fixture.services(&Setup { words: &PLAIN, ..Setup::default() }).await?;
    let customer = services.customer()?;
    customer.fill(1).await?;
    let (mut ordered, mut shown) = ([false; 32], [false; 32]);
    let mut up = 0b1_1111;
    for step in 0..32_u32 {
        lab.progress(step.into(), 32, "combinations of services that are up");
        if step > 0 {
            // One service is killed or started in each step (a Gray code), and all 32 combinations come.
            let bit = step.trailing_zeros() as usize;
            up ^= 1 << bit;
            let child = services.child(CHAIN[bit])?;
            if up >> bit & 1 == 1 { child.restart().await? } else { child.kill().await? }
        }
        // What is not counted finds out which connections lead to a process that was killed.
        let _ = customer.get("/products/1").await;
        let (mut orders, mut pages) = (0, 0);
        for n in 0..params.requests {
            let key = format!("{step}-{n}");
            orders += u32::from(customer.buy(1, 1, &key).await.is_ok_and(|it| it.status() == 201));
            pages +=
                u32::from(customer.get("/products/1").await.is_ok_and(|it| it.status() == 200));
        }
        ordered[up] = orders == params.requests;
        shown[up] = pages == params.requests;
    }
    for (bit, module) in CHAIN.into_iter().enumerate() {
        if up >> bit & 1 == 0 {
            services.child(module)?.restart().await?;
        }
    }
    let count = |good: &[bool]| good.iter().filter(|good| **good).count();
    lab.check_eq(
        "of 32 combinations of services that are up, those in which an order is placed",
        1,
        count(&ordered),
    );
    lab.check_eq("an order is placed when all are up", true, ordered[31]);
    // Pricing, the catalogue and the gateway.
    let needed = (0..32).filter(|up| up & 0b1_0011 == 0b1_0011).all(|up| shown[up]);
    lab.check_eq("those in which a page is shown", 4, count(&shown));
    lab.check_eq("a page is shown whenever the three that it needs are up", true, needed);
    let strict = Setup { words: &PLAIN, gateway: &["--no-fallback"], ..Setup::default() };
    let strict = fixture.prepared(Gateway, &strict, &services).start().await?;
    services.child(Recommendations)?.kill().await?;
    let without = pages(&Customer::of(strict.url())?).await;
    let with = pages(&services.customer()?).await;
    lab.check_eq(FALLBACK, 10, with);
    lab.check_eq("without one: the same", 0, without);
    let mut rows = Vec::new();
    for each in [0.9, 0.99, 0.999] {
        let (order, page) = (availability(&ordered, each), availability(&shown, each));
        let cells = [each, order, page * each, page];
        rows.push(cells.iter().map(|it| format!("{:.2} %", it * 100.0)).collect());
    }
    let columns = ["each service", "an order", "a page without a fallback", "a page with one"];
    lab.table("How often it is available", &columns, rows);
    lab.figure(
        "orders, with each of five services at 99.9 %",
        availability(&ordered, 0.999) * 100.0,
        "%",
    );
    lab.figure(
        "orders, with each of five services at 90 %",
        availability(&ordered, 0.9) * 100.0,
        "%",
    );
    let page = availability(&shown, 0.9);
    lab.figure("pages with a fallback, with each service at 90 %", page * 100.0, "%");
    lab.figure("pages without a fallback, with each service at 90 %", page * 90.0, "%");
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_of_five_is_up_as_often_as_the_product() {
        let mut all = [false; 32];
        all[31] = true;
        assert!((availability(&all, 0.999) - 0.995_009_990).abs() < 1e-6);
        assert!((availability(&[true; 32], 0.7) - 1.0).abs() < 1e-9);
    }
}
