//! How do the services run apart, and how do they come and go?

use anyhow::{Context, ensure};
use conform::http::{header, problem};
use lab::{
    fault::{Fault, Proxy},
    harness::{Outcome, eventually},
};
use saga_orchestrator::{
    cases::client::order,
    experiments::fixture::{self, Fixture},
};
use sqlx::{Connection, PgConnection};

use crate::start;

lab::tests![
    the_services_run_apart,
    a_stopped_orchestrator_lets_go_of_its_orders,
    without_its_database_it_answers_503_and_then_works_again,
];

async fn the_services_run_apart() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let (inventory, stock) = fixture::start(fixture.serve_only("inventory")).await?;
    let payment = fixture.serve_only("payment").start().await?;
    let shipping = fixture.serve_only("shipping").start().await?;
    let addresses = [inventory.address(), payment.address(), shipping.address()];
    let orchestrator = fixture.orchestrator(addresses);
    let (_orchestrator, client) = fixture::start(orchestrator).await?;
    problem(client.target.get("inventory/stock/book").await?, 404).await?;
    stock.put_stock("book", 2).await?;
    problem(stock.target.get("orders").await?, 404).await?;
    let id = client.place_order("apart", &order("book")).await?;
    client.ends(id, "confirmed").await?;
    ensure!(stock.json("inventory/stock/book").await?["sold"] == 2);
    Ok(())
}

async fn a_stopped_orchestrator_lets_go_of_its_orders() -> Outcome {
    let (fixture, mut child, client) = start(&["--lease-ms", "10000"]).await?;
    client.put_stock("book", 1_000).await?;
    let mut ids = Vec::new();
    for number in 0..20 {
        ids.push(client.place_order(&format!("order-{number}"), &order("book")).await?);
    }
    let status = child.stop().await?;
    ensure!(status.success(), "SIGTERM should end in exit status 0: {status}");
    // On a machine so busy that the database did not answer in time, a claim may have been left to its lease.
    let log = child.log();
    let stalls = ["left an order", "cannot look for orders", "fenced off"];
    let was_stalled = stalls.iter().any(|words| log.contains(words));
    child.restart().await?;
    for id in ids {
        client.ends(id, "confirmed").await?;
        client.had(id, [1, 0, 1, 0]).await?;
    }
    client.has_stock("book", [960, 0, 40]).await?;
    // What was let go of is claimed, and only what was left has to be taken over.
    let mut connection = PgConnection::connect(fixture.orders.url()).await?;
    let taken_over: i64 =
        sqlx::query_scalar("select count(*) from saga_log where record ->> 'kind' = 'taken_over'")
            .fetch_one(&mut connection)
            .await?;
    connection.close().await?;
    ensure!(taken_over == 0 || was_stalled, "{taken_over} orders were not let go of: {log}");
    Ok(())
}

async fn without_its_database_it_answers_503_and_then_works_again() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let proxy = Proxy::to_url(fixture.orders.url()).await?;
    let orchestrator =
        fixture.serve_only("orchestrator").env("DATABASE_URL", proxy.url(fixture.orders.url())?);
    let (_child, client) = fixture::start(orchestrator).await?;
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        for path in ["readyz", "orders"] {
            let response = client.target.get(path).await?;
            ensure!(!header(&response, "retry-after").is_empty(), "{path}: no Retry-After");
            problem(response, 503).await.context(path)?;
        }
        let placing = client.keyed("orders", &format!("{fault:?}"), &order("book"));
        problem(client.target.send(placing).await?, 503).await?;
        ensure!(client.target.get("healthz").await?.status() == 200);
        proxy.heal();
        eventually("it works again", async || {
            Ok((client.target.get("readyz").await?.status() == 200).then_some(()))
        })
        .await?;
        client.place_order(&format!("{fault:?} again"), &order("book")).await?;
    }
    Ok(())
}
