//! The services share a database. Are they services?

use lab::{Experiment, Lab, Sabotage, serve::here};

use super::compare::contract::{SOURCES, foreign_tables};
use super::compare::report;
use super::fixture::{Customer, Fixture, Setup};
use crate::module::Module::{self, Catalogue};

/// The catalogue's own business, as its team sees it.
const MIGRATION: &str = "alter table catalogue.products rename column name to title";
const OURS: &str = "tables of others that it finds in the five modules";
const FOUND: &str = "tables of others that the test finds in the report";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Times that the report is asked for, before and after
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    reports: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "distributed-monolith",
        "A report of one service reads another's table. That one renames a column in its own table, and the report, which nobody \
         has touched, fails. A test that looks at which source names which table finds it before",
        &[],
        run,
    )
    .sabotage(Sabotage {
        file: "src/payments.rs",
        replace: "select id from payments.payments where id = any($1)",
        with: "select payment from orders.orders where payment = any($1)",
        check: OURS,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    // All on one database, as is tempting.
    let shared = fixture.services(&Setup { shared: true, ..Setup::default() }).await?;
    let customer = shared.customer()?;
    customer.fill(1).await?;
    customer.must_buy(1, 1, "shared").await?;
    let pool = fixture.whole.pool().await?;
    let served = here(report::router(pool.clone())).await?;
    let reader = Customer::of(&format!("http://{}", served.host))?;
    let before = answered(&reader, "/report", params.reports).await;
    // And each on its own.
    let apart = fixture.services(&Setup::default()).await?;
    let customer = apart.customer()?;
    customer.fill(1).await?;
    let id = customer.must_buy(1, 1, "apart").await?["id"].clone();
    let order = format!("/orders/{}", id.as_str().unwrap_or_default());
    sqlx::query(MIGRATION).execute(&pool).await?;
    sqlx::query(MIGRATION).execute(&fixture.of_service(Catalogue)?.pool().await?).await?;
    let after = answered(&reader, "/report", params.reports).await;
    let own = answered(&customer, &order, params.reports).await;
    lab.check_eq("the report, before the catalogue's migration: answered", params.reports, before);
    lab.check_eq("the report, after it: answered", 0, after);
    lab.check_eq(
        "the orders with a database of their own, after it: answered",
        params.reports,
        own,
    );
    let found = foreign_tables(Module::Orders, report::SOURCE);
    let named = found.iter().cloned().collect::<Vec<_>>().join(", ");
    lab.check_eq(FOUND, "catalogue.products".to_owned(), named);
    let clean = SOURCES.iter().map(|(module, source)| foreign_tables(*module, source).len());
    lab.check_eq(OURS, 0, clean.sum::<usize>());
    let rows = vec![
        vec!["the report".to_owned(), before.to_string(), after.to_string()],
        vec!["the orders, apart".to_owned(), params.reports.to_string(), own.to_string()],
    ];
    lab.table("Answered", &["who", "before", "after the catalogue's migration"], rows);
    Ok(())
}

/// How many of these were answered with 200.
async fn answered(customer: &Customer, path: &str, times: u32) -> u32 {
    let mut answered = 0;
    for _ in 0..times {
        answered += u32::from(customer.get(path).await.is_ok_and(|it| it.status() == 200));
    }
    answered
}
