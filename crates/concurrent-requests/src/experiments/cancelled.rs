//! Half of the clients hang up. For whom does the service work?

use std::{sync::Arc, time::Duration};

use anyhow::ensure;
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
    harness::{eventually, within},
    serve::here,
};
use tokio::{task::JoinSet, time::timeout};

use super::fixture::{Clients, Far, Fixture, product};
use crate::{cases::client::new_key, whiteboard};

const CONNECTIONS: u32 = 4;
/// Each way to the database and back.
const DELAY: Duration = Duration::from_millis(10);
/// So long may it take until the shop has heard that clients have hung up.
const HEARD: Duration = Duration::from_secs(5);
/// The product that is bought.
const BOUGHT: i64 = 100;
/// So many are there at first.
const STOCK: i32 = 1_000;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Requests at the same moment; every second one is given up
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(100..=2_000))]
    requests: u32,
    /// Orders that are given up at some moment, and sent again later
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(10..=500))]
    orders: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "cancelled",
        "Half of the clients hang up. A service that drops their requests asks its database for next to nobody but those who \
         wait. An order that is dropped at any moment is made whole or not at all, and can be sent again: it is one statement. \
         With two, items are taken without an order",
        &["--requests", "200", "--orders", "30"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/api.rs",
        replace: "if shop.options.finish_abandoned {",
        with: "if shop.options.timeout_ms > 0 {",
        check: "dropped: statements for 100 requests, half of which were given up",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, STOCK).await?;
    let mut rows = Vec::new();
    for (name, more) in [("finished", &["--finish-abandoned"][..]), ("dropped", &[])] {
        lab.progress(rows.len() as u64, 3, name);
        let words = ["--in-flight", "4", "--waiting", "100000", "--timeout-ms", "60000"];
        let words = [&words[..], more].concat();
        let far = fixture.far(CONNECTIONS, DELAY, &words).await?;
        let (before, connected) = (far.proxy.messages(), far.proxy.connections());
        let answered = burst(&far, params.requests, name == "dropped").await? as u64;
        let statements = far.proxy.messages() - before;
        let connections = far.proxy.connections() - connected;
        let for_a_hundred = statements as f64 * 100.0 / f64::from(params.requests);
        rows.push(
            [u64::from(params.requests), answered, statements, connections]
                .map(|it| it.to_string()),
        );
        let check = format!("{name}: statements for 100 requests, half of which were given up");
        let seen = format!("{for_a_hundred:.0}");
        lab.figure(&check, for_a_hundred, "");
        if name == "finished" {
            lab.check(check, "95 or more", seen, for_a_hundred >= 95.0);
        } else {
            lab.check(check, "80 or less", seen, for_a_hundred <= 80.0);
        }
    }
    let rows = ["finished", "dropped"].iter().zip(rows);
    let rows = rows.map(|(name, cells)| [vec![(*name).to_owned()], cells.to_vec()].concat());
    let columns = [
        "abandoned requests are",
        "requests",
        "answered",
        "messages to the database",
        "new connections",
    ];
    lab.table("Requests at the same moment", &columns, rows.collect());
    orders(&lab, &fixture, params.orders).await
}

/// All ask, half of them hang up, and then the database answers; how many were answered, when the service has nothing left to
/// do. Nobody hangs up before all have come, so that a slow machine changes nothing.
async fn burst(far: &Far, requests: u32, dropped: bool) -> anyhow::Result<usize> {
    far.proxy.set(Fault::BlackHole);
    let (mut patient, mut impatient) = (JoinSet::new(), JoinSet::new());
    for n in 0..requests {
        let all = if n.is_multiple_of(2) { &mut impatient } else { &mut patient };
        let clients = Arc::clone(&far.clients);
        all.spawn(async move { clients.get(&product(n.into())).await });
    }
    eventually("all are in", async || Ok((far.inside().await? >= requests.into()).then_some(())))
        .await?;
    // Dropping a request closes its connection.
    impatient.shutdown().await;
    if dropped {
        // The shop may hear of it later. If it never does, the statements tell.
        let _ = within(HEARD, "the others are gone", async || {
            Ok((far.inside().await? <= u64::from(requests / 2)).then_some(()))
        })
        .await;
    }
    far.proxy.set(Fault::Delay(DELAY));
    let answers = patient.join_all().await;
    rests(far).await?;
    Ok(answers.into_iter().filter(|it| matches!(it, Ok(200))).count())
}

/// Waits until nobody is at work or waits.
async fn rests(far: &Far) -> anyhow::Result<()> {
    eventually("the shop has nothing to do", async || Ok((far.inside().await? == 0).then_some(())))
        .await
}

/// Orders are given up one after another, each a little later than the one before: while the statement is on its way, while
/// its answer is, and in the end not at all.
async fn orders(lab: &Lab, fixture: &Fixture, orders: u32) -> anyhow::Result<()> {
    lab.progress(2, 3, "orders that are given up");
    let words = ["--in-flight", "4", "--waiting", "100000"];
    let far = fixture.far(4, DELAY, &words).await?;
    let keys: Vec<_> = (0..orders).map(|_| new_key()).collect();
    let mut answered = 0;
    for (n, key) in (0..).zip(&keys) {
        // Somebody waits, so that the next one finds a connection that knows the statement. The database is near meanwhile,
        // since a new connection needs many round trips.
        far.proxy.set(Fault::Delay(Duration::from_millis(2)));
        let status = far.clients.order(BOUGHT, &new_key()).await?;
        ensure!(status == 201, "{status}");
        far.proxy.set(Fault::Delay(DELAY));
        let patience = Duration::from_millis(1 + u64::from(40 * n / orders));
        let answer = timeout(patience, far.clients.order(BOUGHT, key)).await;
        answered += i64::from(matches!(answer, Ok(Ok(201))));
    }
    rests(&far).await?;
    let (missing, sold) = fixture.books(BOUGHT, STOCK).await?;
    lab.check_eq("given up at any moment: items that were taken without an order", 0, missing);
    // Without those of the clients who waited.
    let made = sold - i64::from(orders) - answered;
    let check = "orders that were made although their clients had gone";
    lab.check(check, "1 or more", made, made >= 1);
    lab.figure(check, made as f64, "");
    let mut again = 0;
    for key in &keys {
        again += u32::from(far.clients.order(BOUGHT, key).await? == 201);
    }
    lab.check_eq("sent again with their keys: orders answered with 201", orders, again);
    let (missing, sold) = fixture.books(BOUGHT, STOCK).await?;
    lab.check_eq("and items that were sold, one for each key", 2 * i64::from(orders), sold);
    lab.check_eq("and items that were taken without an order", 0, missing);
    two_statements(lab).await
}

/// The whiteboard's shop takes the stock with one statement, and makes the order with another. Its clients hang up a little
/// later each time, until some are answered.
async fn two_statements(lab: &Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(lab, STOCK).await?;
    let proxy = Proxy::to_url(fixture.database.url()).await?;
    let shop = here(whiteboard::router(&proxy.url(fixture.database.url())?).await?).await?;
    let clients = Clients::of(&shop.host);
    proxy.set(Fault::Delay(DELAY / 2));
    for n in 1..=22 {
        // Somebody waits, so that the next one finds a connection that knows the statements.
        let status = clients.order(BOUGHT, &new_key()).await?;
        ensure!(status == 201, "{status}");
        let patience = Duration::from_millis(4 * n);
        let _ = timeout(patience, clients.order(BOUGHT, &new_key())).await;
    }
    let (missing, _) = fixture.books(BOUGHT, STOCK).await?;
    let check = "two statements: items that were taken without an order";
    lab.check(check, "1 or more", missing, missing >= 1);
    Ok(())
}
