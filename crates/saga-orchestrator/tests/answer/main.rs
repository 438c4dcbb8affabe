//! Do the services do what their table of calls (`src/cases`) cannot say? With options of their own, several processes,
//! other flows, a look into their databases, or a fault.

mod faults;
mod flows;
mod orders;
mod processes;

use std::process::ExitCode;

use conform::http::problem;
use lab::{
    child::Child,
    fault::{Fault, Proxy},
    harness::{Served, eventually, run},
};
use saga_orchestrator::{
    cases::client::{Client, order},
    experiments::fixture::{self, Fixture},
};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Options for an orchestrator that soon tries again.
const IMPATIENT: [&str; 4] = ["--backoff-ms", "20", "--longest-backoff-ms", "100"];

fn main() -> ExitCode {
    let tests = [orders::tests(), processes::tests(), flows::tests(), faults::tests()]
        .into_iter()
        .flatten();
    run(saga_orchestrator::answer(), || Box::pin(serve_for_cases()), tests.collect())
}

/// The program as its cases want it. After a kill, the next orchestrator waits for the lease of the dead one.
async fn serve_for_cases() -> anyhow::Result<Served> {
    let (fixture, child, _client) = start(&["--lease-ms", "2000"]).await?;
    Ok(Served::new(child, fixture))
}

/// All services in one process of the test's own, and a client of it. The fixture has to outlive both.
async fn start(options: &[&str]) -> anyhow::Result<(Fixture, Child, Client)> {
    let fixture = Fixture::fresh().await?;
    let (child, client) = fixture::start(fixture.serve().args(&IMPATIENT).args(options)).await?;
    Ok((fixture, child, client))
}

/// What this statement counts in this database.
async fn count(url: &str, statement: &'static str) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    let count = sqlx::query_scalar(statement).fetch_one(&mut connection).await?;
    connection.close().await?;
    Ok(count)
}

/// Places an order that is committed, while its answer gets lost on the way through this proxy. Its client asks once:
/// asking again would wake whoever carries it on.
async fn place_unconfirmed(
    client: &Client,
    fixture: &Fixture,
    orders: &Proxy,
) -> anyhow::Result<Uuid> {
    let url = fixture.orders.url();
    let mut direct = PgConnection::connect(url).await?;
    // A commit lasts for as long as this test wants.
    sqlx::raw_sql(
        r#"
        create function hold() returns trigger language plpgsql as
            $$begin perform pg_advisory_xact_lock(1); return null; end$$;
        create constraint trigger hold after insert on orders deferrable initially deferred
            for each row execute function hold();
        select pg_advisory_lock(1);
        "#,
    )
    .execute(&mut direct)
    .await?;
    let placing = client.target.send(client.keyed("orders", "lost", &order("book")));
    let losing = async {
        eventually("the order is being committed", async || {
            let held = r#"
                select count(*)
                from pg_locks
                where locktype = 'advisory'
                    and not granted
                    and database = (select oid from pg_database where datname = current_database())
            "#;
            Ok((count(url, held).await? == 1).then_some(()))
        })
        .await?;
        // From here on no answer comes through.
        orders.set(Fault::BlackHole);
        sqlx::query("select pg_advisory_unlock(1)").execute(&mut direct).await?;
        eventually("the order is committed", async || {
            let placed = "select count(*) from orders where idempotency_key = 'lost'";
            Ok((count(url, placed).await? == 1).then_some(()))
        })
        .await?;
        orders.set(Fault::Cut);
        anyhow::Ok(())
    };
    let (answer, ()) = tokio::try_join!(placing, losing)?;
    problem(answer, 503).await?;
    orders.heal();
    let id = sqlx::query_scalar("select id from orders where idempotency_key = 'lost'")
        .fetch_one(&mut direct)
        .await?;
    direct.close().await?;
    Ok(id)
}
