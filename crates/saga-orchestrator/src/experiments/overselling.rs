//! Who gets the last item when everybody wants it?

use std::time::{Duration, Instant};

use anyhow::Context;
use conform::target::within;
use lab::{Experiment, Lab, Sabotage, load::http::Connection};
use sqlx::{Connection as _, PgConnection};
use tokio::task::JoinSet;

use super::{
    books::Books,
    fixture::{ALL, Fixture, book_order},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Orders
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    orders: u32,
    /// Items that there are
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    items: u32,
    /// Orchestrators that share the work
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=16))]
    orchestrators: u16,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "overselling",
        "Thousands of orders for a hundred items, taken by four orchestrators: a hundred are confirmed, all \
         others are cancelled, none is oversold and none is lost",
        &["--orders", "400", "--items", "25"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store/inventory.rs",
        replace: "stock.available >= wanted.quantity",
        with: "stock.available > wanted.quantity",
        check: "orders confirmed",
    })
}

/// Clients of each orchestrator.
const CLIENTS: u32 = 8;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    fixture.parts.stock(params.items.into()).await?;
    let participants = fixture.serve_only(ALL).start().await?;
    // Nothing is to be given up, however slow the machine is.
    let orchestrator =
        fixture.orchestrator([participants.address(); 3]).args(&["--attempts", "10000"]);
    let mut children = Vec::new();
    for _ in 0..params.orchestrators {
        children.push(orchestrator.clone().start().await?);
    }
    let begun = Instant::now();
    let clients = CLIENTS * u32::from(params.orchestrators);
    let mut work = JoinSet::new();
    for client in 0..clients {
        let host = children[client as usize % children.len()].address().to_owned();
        let numbers: Vec<_> = (client..params.orders).step_by(clients as usize).collect();
        work.spawn(async move {
            let mut connection = Connection::open(&host).await?;
            let order = book_order("pm_card_visa", "GB").to_string();
            let mut accepted = 0_i64;
            for number in numbers {
                let key = [("idempotency-key", format!("order-{number}"))];
                let request = connection.post_with("/orders", &key, &order);
                // On a busy machine it may say 503. The same key again can do no harm.
                let begun = Instant::now();
                while connection.send(&request).await? != 202 {
                    anyhow::ensure!(begun.elapsed().as_secs() < 60, "an order is not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                accepted += 1;
            }
            anyhow::Ok(accepted)
        });
    }
    let mut accepted = 0;
    while let Some(done) = work.join_next().await {
        accepted += done.context("a client panicked")??;
        lab.progress(u64::try_from(accepted)?, params.orders.into(), "orders accepted");
    }
    let taken = begun.elapsed();
    // As long as a slow machine needs for so many.
    let patience = Duration::from_mins(1) + Duration::from_millis(50) * params.orders;
    let counts = within(patience, "every order ends", async || {
        let mut direct = PgConnection::connect(fixture.orders.url()).await?;
        let counts: (i64, i64, i64, i64) = sqlx::query_as(
            r#"
            select
                count(*) filter (where status = 'confirmed'),
                count(*) filter (where status = 'cancelled'),
                count(*) filter (where due_at is not null),
                count(*)
            from orders
            "#,
        )
        .fetch_one(&mut direct)
        .await?;
        direct.close().await?;
        lab.progress(u64::try_from(counts.0 + counts.1)?, params.orders.into(), "orders ended");
        Ok((counts.2 == 0).then_some(counts))
    })
    .await?;
    let ended = begun.elapsed().as_secs_f64();
    let (confirmed, cancelled, _, kept) = counts;
    lab.figure("all orders were accepted after", taken.as_secs_f64(), "s");
    lab.figure("all orders had ended after", ended, "s");
    lab.figure("orders a second", f64::from(params.orders) / ended, "");
    lab.check_eq("orders kept, one for each that was accepted", accepted, kept);
    lab.check_eq("orders confirmed", i64::from(params.items.min(params.orders)), confirmed);
    lab.check_eq("orders cancelled", i64::from(params.orders) - confirmed, cancelled);
    Books::of(&fixture.parts).await?.check(&lab, params.items.into(), confirmed);
    shares(&lab, &fixture).await
}

/// Whether the work was really shared: how many orders each token's holder has finished cannot be seen, but how many
/// had to be taken over can.
async fn shares(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let mut direct = PgConnection::connect(fixture.orders.url()).await?;
    let (tokens, taken_over): (i64, i64) = sqlx::query_as(
        r#"
        select
            (select sum(fence)::bigint from orders),
            (select count(*) from saga_log where record ->> 'kind' = 'taken_over')
        "#,
    )
    .fetch_one(&mut direct)
    .await?;
    direct.close().await?;
    // A claim uses up a token, and so does its end, unless the order was taken over.
    let begun_and_ended = tokens + taken_over;
    let claims = begun_and_ended / 2;
    lab.figure("claims of an order", claims as f64, "");
    lab.figure("of these, take-overs from one whose lease had ended", taken_over as f64, "");
    Ok(())
}
