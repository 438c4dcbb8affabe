//! What is so bad about two-phase commit? Kill its coordinator at the wrong moment and look.

use std::time::Duration;

use conform::target::within;
use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    fault::{Fault, Proxy, Side},
};
use sqlx::{Connection, PgConnection};

use super::fixture::{ALL, Fixture, SKU, book_order, end_within, soon, start};
use crate::cases::client::PATIENCE;

/// How long the saga may take to end, after a lease of 200 ms.
const SOON: Duration = Duration::from_secs(15);

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Milliseconds that somebody else waits for the row that is locked
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=10_000))]
    wait_ms: u64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "two-phase-commit",
        "With `prepare transaction`, a coordinator killed between the phases leaves rows locked until somebody acts, \
         through a restart of the database; a saga's orchestrator killed half-way leaves none",
        &["--wait-ms", "200"],
        run,
    )
    .needs(&[Need::Own(Service::Postgres)])
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "where due_at <= now()",
        with: "where due_at <= now() and not leased",
        check: "when an orchestrator is there again, nobody has to act: it ends",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // By default PostgreSQL allows no prepared transactions at all, and has its reasons.
    let mut server = lab.own_server(Service::Postgres).await?;
    let url = server.url()?;
    let mut admin = PgConnection::connect(&url).await?;
    sqlx::query("alter system set max_prepared_transactions = 16").execute(&mut admin).await?;
    drop(admin);
    server.kill().await?;
    server.restart().await?;
    let fixture = Fixture::on(&url).await?;
    fixture.parts.stock(10).await?;

    lab.progress(0, 3, "two-phase commit");
    kill_between_the_phases(&lab, &fixture).await?;
    let left = prepared(&url).await?;
    lab.check_eq("transactions that are prepared, and that nobody will end", 3, left);
    let waited = try_row(&fixture, params.wait_ms).await?;
    lab.check(
        "somebody else who wants the same item",
        "waits in vain",
        &waited,
        waited == "waits in vain",
    );

    lab.progress(1, 3, "the database is killed and comes back");
    server.kill().await?;
    server.restart().await?;
    let again =
        within(PATIENCE, "the database is back", async || Ok(prepared(&url).await.ok())).await?;
    lab.check_eq("prepared transactions after a restart of the database", 3, again);
    let waited = try_row(&fixture, params.wait_ms).await?;
    lab.check("and somebody else still", "waits in vain", &waited, waited == "waits in vain");
    end_by_hand(&fixture).await?;
    let waited = try_row(&fixture, params.wait_ms).await?;
    lab.check("after somebody has acted, the next one", "gets it", &waited, waited == "gets it");

    lab.progress(2, 3, "the saga");
    saga(&lab, &fixture, params.wait_ms).await
}

/// Kills the coordinator when all have voted yes and none has heard the verdict.
async fn kill_between_the_phases(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let (inventory, payment, shipping) =
        (fixture.parts.inventory.url(), fixture.parts.payment.url(), fixture.parts.shipping.url());
    let proxy = Proxy::to_url(inventory).await?;
    let proxied = proxy.url(inventory)?;
    let coordinator = fixture.serve_on([&proxied, payment, shipping]);
    let (mut child, client) = start(coordinator.args(&["--flow", "two-phase-commit"])).await?;
    // A rehearsal counts the messages: the last one to the inventory is the verdict, and nobody has heard it before.
    let before = proxy.messages();
    let order = book_order("pm_card_visa", "GB");
    let id = client.place_order("rehearsal", &order).await?;
    let ended = client.ended(id).await?;
    let end = ended["status"].as_str().unwrap_or_default();
    lab.check_eq("in peace the order ends", "confirmed", end);
    let verdict = proxy.messages() - before;
    let caught = proxy.at_message(proxy.messages() + verdict, Side::Before);
    let placing = tokio::spawn(async move { client.place_order("killed", &order).await });
    let held = soon(caught).await?;
    child.kill().await?;
    proxy.set(Fault::Cut);
    held.gone().await;
    placing.abort();
    Ok(())
}

async fn prepared(url: &str) -> anyhow::Result<i64> {
    let mut admin = PgConnection::connect(url).await?;
    let count =
        sqlx::query_scalar("select count(*) from pg_prepared_xacts").fetch_one(&mut admin).await?;
    admin.close().await?;
    Ok(count)
}

/// Somebody else wants one of the same item.
async fn try_row(fixture: &Fixture, wait_ms: u64) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect(fixture.parts.inventory.url()).await?;
    sqlx::query("select set_config('lock_timeout', $1, false)")
        .bind(format!("{wait_ms}ms"))
        .execute(&mut connection)
        .await?;
    let update = sqlx::query("update stock set available = available where sku = $1")
        .bind(SKU)
        .execute(&mut connection)
        .await;
    let seen = match update {
        Ok(_) => "gets it".to_owned(),
        // lock_not_available
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("55P03") => {
            "waits in vain".to_owned()
        }
        Err(error) => error.to_string(),
    };
    connection.close().await?;
    Ok(seen)
}

/// What an administrator does who finds them in `pg_prepared_xacts`.
async fn end_by_hand(fixture: &Fixture) -> anyhow::Result<()> {
    for database in fixture.parts.databases() {
        let mut connection = PgConnection::connect(database.url()).await?;
        let names: Vec<String> = sqlx::query_scalar(
            "select gid from pg_prepared_xacts where database = current_database()",
        )
        .fetch_all(&mut connection)
        .await?;
        for name in names {
            let rollback = format!("rollback prepared '{name}'");
            sqlx::raw_sql(sqlx::AssertSqlSafe(rollback)).execute(&mut connection).await?;
        }
        connection.close().await?;
    }
    Ok(())
}

/// The same order as a saga, killed in the middle: reserved and charged, and not yet booked.
async fn saga(lab: &Lab, fixture: &Fixture, wait_ms: u64) -> anyhow::Result<()> {
    let participants = fixture.serve_only(ALL).start().await?;
    let direct = participants.address().parse()?;
    let shipping = Proxy::to(participants.address()).await?;
    let orchestrator =
        fixture.orchestrator([direct, direct, shipping.address()]).args(&["--lease-ms", "200"]);
    let (mut child, client) = start(orchestrator).await?;
    let caught = shipping.at_message(1, Side::Before);
    client.place_order("saga", &book_order("pm_card_visa", "GB")).await?;
    let held = soon(caught).await?;
    child.kill().await?;
    let waited = try_row(fixture, wait_ms).await?;
    lab.check(
        "with the saga's orchestrator dead, somebody else",
        "gets it",
        &waited,
        waited == "gets it",
    );
    let mut direct = PgConnection::connect(fixture.parts.inventory.url()).await?;
    let reserved: i64 =
        sqlx::query_scalar("select reserved from stock").fetch_one(&mut direct).await?;
    direct.close().await?;
    lab.check_eq(
        "and the item of the dead one's order is reserved, by data and not by a lock",
        1,
        reserved,
    );
    shipping.set(Fault::Cut);
    held.gone().await;
    shipping.heal();
    child.restart().await?;
    let mut direct = PgConnection::connect(fixture.orders.url()).await?;
    let (_, end) = end_within(&mut direct, "saga", SOON).await?;
    lab.check_eq(
        "when an orchestrator is there again, nobody has to act: it ends",
        "confirmed",
        end.as_str(),
    );
    Ok(())
}
