//! Three layers try three times each. How often is the last one asked?

use futures_util::future::join_all;
use lab::{Experiment, Lab, Sabotage, Target};

use super::fixture::{Customer, Fixture, Refusing, Setup};
use crate::error::RETRIED;

const BUDGET: &str = "with a budget: calls to the payments for one order";
/// Everybody tries as long as is allowed: a breaker would end it.
const NAIVE: [&str; 3] = ["--retries", "naive", "--no-breaker"];
const WITH: [&str; 3] = ["--retries", "budget", "--no-breaker"];

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Orders, while the payments refuse everything
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(20..=1_000))]
    orders: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "retry-storm",
        "The payments refuse everything. The client, the gateway and the orders each try three times, so one order becomes 27 \
         calls. With a budget of 10 %, spent only next to the failure, it becomes 1.1",
        &["--orders", "40"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/peer.rs",
        replace: "let may_help = !is(RETRIED, \"1\") || self.retries == Retries::Naive;",
        with: "let may_help = true;",
        check: BUDGET,
    })
    .sabotage(Sabotage {
        file: "src/peer.rs",
        replace: "tenths.checked_sub(10)",
        with: "tenths.checked_sub(1)",
        check: BUDGET,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut rows = Vec::new();
    let mut each = Vec::new();
    for (name, words) in [("each layer three times", NAIVE), ("with a budget", WITH)] {
        lab.progress(each.len() as u64, 2, name);
        let payments = Refusing::start().await?;
        let url = payments.url();
        let setup = Setup { words: &words, payments: Some(&url), ..Setup::default() };
        let services = fixture.services(&setup).await?;
        let customer = services.customer()?;
        customer.fill(1).await?;
        let mut refused = 0;
        for some in (0..params.orders).collect::<Vec<_>>().chunks(5) {
            let keys: Vec<_> =
                some.iter().map(|n| format!("{name}-{n}").replace(' ', "-")).collect();
            let orders = join_all(keys.iter().map(|key| buy(&customer, key, words == NAIVE))).await;
            refused += orders.into_iter().filter(|refused| *refused).count();
        }
        let calls = payments.calls() as f64 / f64::from(params.orders);
        rows.push(vec![
            name.to_owned(),
            params.orders.to_string(),
            payments.calls().to_string(),
            format!("{calls:.2}"),
        ]);
        lab.check_eq(format!("{name}: orders that are refused"), params.orders as usize, refused);
        each.push(calls);
    }
    lab.table(
        "Payments that refuse",
        &["retries", "orders", "calls to the payments", "for each order"],
        rows,
    );
    let check = "each layer three times: calls to the payments for one order";
    lab.check(check, "27", format!("{:.2}", each[0]), (each[0] - 27.0).abs() < 0.01);
    lab.check(BUDGET, "1.15 or less", format!("{:.2}", each[1]), each[1] <= 1.15);
    lab.figure(check, each[0], "");
    lab.figure_with_target(BUDGET, each[1], "", Target::AtMost(1.1));
    Ok(())
}

/// Orders three times if need be. A client that is not naive stops when the answer says that others have tried already.
/// Whether it was refused.
async fn buy(customer: &Customer, key: &str, is_naive: bool) -> bool {
    for _ in 0..3 {
        let Ok(answer) = customer.buy(1, 1, key).await else { return false };
        if answer.status() != 503 {
            return false;
        }
        if !is_naive && answer.headers().contains_key(RETRIED) {
            break;
        }
    }
    true
}
