//! Reports hang. Can anybody still look at a product?

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use lab::{Experiment, Lab, Sabotage, harness::eventually};
use tokio::task::JoinSet;

use super::fixture::{Clients, Fixture, product};

const CONNECTIONS: &str = "4";
/// How many reports may use the database at once, and how long a client waits for a product: beside a bulkhead, long enough
/// for the busiest machine.
const WAYS: [(&str, &str, Duration); 2] = [
    ("without a bulkhead", "100", Duration::from_secs(1)),
    ("with a bulkhead", "1", Duration::from_secs(20)),
];
/// Clients that ask for reports.
const REPORTERS: u64 = 8;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Products that are read while the reports hang
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    reads: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "noisy-neighbour",
        "Reports that hang take every connection, and no product can be read any more. With a bulkhead they take one, and \
         the others do not notice",
        &["--reads", "10"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/bulkhead.rs",
        replace: "Self(Arc::new(Semaphore::new(places.max(1))))",
        with: "Self(Arc::new(Semaphore::new(places.max(1) * 100)))",
        check: "with a bulkhead: products that could be read while the reports hung",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let mut rows = Vec::new();
    for (name, places, patience) in WAYS {
        lab.progress(rows.len() as u64, 2, name);
        let words = ["--connections", CONNECTIONS, "--report-connections", places];
        let words = [&words[..], &["--timeout-ms", "30000"]].concat();
        let shop = fixture.serve().args(&words).start().await?;
        let clients = Arc::new(Clients::of(shop.address()));
        // The connections are made before anything hangs.
        let warm = (0..32).map(|n| {
            let clients = Arc::clone(&clients);
            async move { clients.get(&product(n)).await }
        });
        join_all(warm).await;
        // As a migration would that changes the table: whoever reads orders waits.
        let mut locked = fixture.pool.begin().await?;
        sqlx::query("lock table orders in access exclusive mode").execute(&mut *locked).await?;
        let mut reporters = JoinSet::new();
        for _ in 0..REPORTERS {
            let clients = Arc::clone(&clients);
            reporters.spawn(async move {
                loop {
                    // Whoever is refused comes back a little sooner than it was told.
                    let _ = clients.get("/reports/2026-01-31").await;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            });
        }
        let hang = if places == "1" { 1 } else { 4 };
        let hanging = eventually("the reports hang", async || {
            let waiting = fixture.waiters().await?;
            Ok((waiting >= hang).then_some(waiting))
        })
        .await?;
        let reads = (0..params.reads).map(|n| {
            let clients = &clients;
            async move { clients.get_in_time(&product(n.into()), patience, false).await }
        });
        let reads = join_all(reads).await;
        let read = reads.iter().filter(|it| matches!(it, Ok(Some(200)))).count();
        reporters.shutdown().await;
        locked.rollback().await?;
        let cells = [hanging.to_string(), format!("{read} of {}", params.reads)];
        rows.push([vec![name.to_owned()], cells.to_vec()].concat());
        let check = format!("{name}: products that could be read while the reports hung");
        let expected = if places == "1" { params.reads as usize } else { 0 };
        lab.check_eq(check, expected, read);
    }
    let columns = ["shop", "connections that reports hold", "products read"];
    lab.table("While nobody can read the orders", &columns, rows);
    Ok(())
}
