//! What is so bad about two-phase commit? Kill its coordinator at the wrong moment and look.

use lab::{
    Experiment, Lab, Need, Service,
    database::Database,
    fault::{Fault, Proxy, Side},
};
use sqlx::{Connection, PgConnection};

use super::world::{Api, SKU, order_json, soon, until};
use crate::{INVENTORY, MIGRATIONS, PAYMENT, SHIPPING};

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
}

/// Four databases on one server of the experiment's own.
struct Databases {
    orders: Database,
    inventory: Database,
    payment: Database,
    shipping: Database,
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
    let databases = Databases {
        orders: Database::fresh_on(&url, "saga-orchestrator", &MIGRATIONS).await?,
        inventory: Database::fresh_on(&url, "saga-inventory", &INVENTORY).await?,
        payment: Database::fresh_on(&url, "saga-payment", &PAYMENT).await?,
        shipping: Database::fresh_on(&url, "saga-shipping", &SHIPPING).await?,
    };
    stock(&databases).await?;

    lab.progress(0, 3, "two-phase commit");
    kill_between_the_phases(&lab, &databases).await?;
    let prepared = prepared(&url).await?;
    lab.check_eq("transactions that are prepared, and that nobody will end", 3, prepared);
    let waited = try_row(&databases, params.wait_ms).await?;
    lab.check(
        "somebody else who wants the same item",
        "waits in vain",
        &waited,
        waited == "waits in vain",
    );

    lab.progress(1, 3, "the database is killed and comes back");
    server.kill().await?;
    server.restart().await?;
    let again = until("the database is back", async || Ok(prepared_or_none(&url).await)).await?;
    lab.check_eq("prepared transactions after a restart of the database", 3, again);
    let waited = try_row(&databases, params.wait_ms).await?;
    lab.check("and somebody else still", "waits in vain", &waited, waited == "waits in vain");
    end_by_hand(&databases).await?;
    let waited = try_row(&databases, params.wait_ms).await?;
    lab.check("after somebody has acted, the next one", "gets it", &waited, waited == "gets it");

    lab.progress(2, 3, "the saga");
    saga(&lab, &databases, params.wait_ms).await
}

async fn stock(databases: &Databases) -> anyhow::Result<()> {
    let mut connection = PgConnection::connect(databases.inventory.url()).await?;
    sqlx::query("insert into stock (sku, available) values ($1, 10)")
        .bind(SKU)
        .execute(&mut connection)
        .await?;
    Ok(connection.close().await?)
}

/// Kills the coordinator when all have voted yes and none has heard the verdict.
async fn kill_between_the_phases(lab: &Lab, databases: &Databases) -> anyhow::Result<()> {
    let proxy = Proxy::to_url(databases.inventory.url()).await?;
    let mut child = lab
        .serve()
        .database(&databases.orders)
        .args(&["--flow", "two-phase-commit", "--inventory-database"])
        .arg(proxy.url(databases.inventory.url())?)
        .arg("--payment-database")
        .arg(databases.payment.url())
        .arg("--shipping-database")
        .arg(databases.shipping.url())
        .start()
        .await?;
    // A rehearsal counts the messages: the last one to the inventory is the verdict, and nobody has heard it before.
    let before = proxy.messages();
    let api = Api::of(&child)?;
    let id = api.order("rehearsal", &order_json("pm_card_visa", "GB")).await?;
    let order = api.wait(id, &["confirmed", "cancelled"]).await?;
    let end = order["status"].as_str().unwrap_or_default();
    lab.check_eq("in peace the order ends", "confirmed", end);
    let verdict = proxy.messages() - before;
    let caught = proxy.at_message(proxy.messages() + verdict, Side::Before);
    let order = order_json("pm_card_visa", "GB");
    let client = tokio::spawn(async move { api.try_order("killed", &order).await });
    let held = soon(caught).await?;
    child.kill().await?;
    proxy.set(Fault::Cut);
    drop(held);
    client.abort();
    Ok(())
}

async fn prepared(url: &str) -> anyhow::Result<i64> {
    let mut admin = PgConnection::connect(url).await?;
    let count =
        sqlx::query_scalar("select count(*) from pg_prepared_xacts").fetch_one(&mut admin).await?;
    admin.close().await?;
    Ok(count)
}

async fn prepared_or_none(url: &str) -> Option<i64> {
    prepared(url).await.ok()
}

/// Somebody else wants one of the same item.
async fn try_row(databases: &Databases, wait_ms: u64) -> anyhow::Result<String> {
    let mut connection = PgConnection::connect(databases.inventory.url()).await?;
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
async fn end_by_hand(databases: &Databases) -> anyhow::Result<()> {
    for database in [&databases.inventory, &databases.payment, &databases.shipping] {
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
async fn saga(lab: &Lab, databases: &Databases, wait_ms: u64) -> anyhow::Result<()> {
    let participants = lab
        .serve()
        .database(&databases.orders)
        .args(&["--only", "inventory,payment,shipping", "--inventory-database"])
        .arg(databases.inventory.url())
        .arg("--payment-database")
        .arg(databases.payment.url())
        .arg("--shipping-database")
        .arg(databases.shipping.url())
        .start()
        .await?;
    let shipping = Proxy::to(participants.address()).await?;
    let mut child = lab
        .serve()
        .database(&databases.orders)
        .args(&["--only", "orchestrator", "--lease-ms", "200"])
        .arg("--inventory-url")
        .arg(format!("{}/inventory", participants.url()))
        .arg("--payment-url")
        .arg(format!("{}/payment", participants.url()))
        .arg("--shipping-url")
        .arg(format!("http://{}/shipping", shipping.address()))
        .start()
        .await?;
    let caught = shipping.at_message(1, Side::Before);
    let api = Api::of(&child)?;
    let id = api.order("saga", &order_json("pm_card_visa", "GB")).await?;
    let held = soon(caught).await?;
    child.kill().await?;
    let waited = try_row(databases, wait_ms).await?;
    lab.check(
        "with the saga's orchestrator dead, somebody else",
        "gets it",
        &waited,
        waited == "gets it",
    );
    let mut direct = PgConnection::connect(databases.inventory.url()).await?;
    let reserved: i64 =
        sqlx::query_scalar("select reserved from stock").fetch_one(&mut direct).await?;
    direct.close().await?;
    lab.check_eq(
        "and the item of the dead one's order is reserved, by data and not by a lock",
        1,
        reserved,
    );
    shipping.set(Fault::Cut);
    drop(held);
    shipping.heal();
    child.restart().await?;
    let order = Api::of(&child)?.wait(id, &["confirmed", "cancelled", "stuck"]).await?;
    lab.check_eq(
        "when an orchestrator is there again, nobody has to act: it ends",
        "confirmed",
        order["status"].as_str().unwrap_or_default(),
    );
    Ok(())
}
