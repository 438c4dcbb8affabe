//! A hundred want the same product at the same moment. How often is the database asked, and how old may the answer be?

use std::sync::Arc;

use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
    harness::{eventually, somebody_waits},
};
use serde_json::Value;
use tokio::task::JoinSet;

use super::fixture::{Clients, Fixture};

const PATH: &str = "/products/1";
/// What is written while a read is under way. There was one before.
const WRITTEN: i32 = 77;

/// A name, what the shop is started with, and whether equal reads share a statement.
const WAYS: [(&str, &[&str], bool); 2] =
    [("each for itself", &[], false), ("shared", &["--share-reads"], true)];

/// A read of a product waits as long as somebody holds the gate. It has its snapshot then: it sees what was there when it began.
const GATE: &str = r#"
    create function gate() returns boolean
    language plpgsql
    as $$
    begin
        perform pg_advisory_xact_lock_shared(1);
        return true;
    end
    $$;
    alter table products rename to shelf;
    create view products as
    select id, name, cents, stock
    from shelf
    where (select gate());
"#;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Clients that ask for the same product at the same moment
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(10..=900))]
    reads: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "single-flight",
        "Equal reads at the same moment can share one statement. The price: a read that joins an older one does not see what \
         was written in between, even if the write has been answered",
        &["--reads", "50"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "flights.extend(flight.downgrade().map(|it| (id, it)));",
        with: "",
        check: "shared: statements for a hundred equal reads",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (name, words, is_shared) in WAYS {
        lab.progress(rows.len() as u64, 2, name);
        let fixture = Fixture::of(&lab, 1).await?;
        sqlx::raw_sql(GATE).execute(&fixture.pool).await?;
        let proxy = Proxy::to_url(fixture.database.url()).await?;
        let url = proxy.url(fixture.database.url())?;
        let words = [&["--in-flight", "1000", "--timeout-ms", "60000"], words].concat();
        let shop = fixture.serve().env("DATABASE_URL", url).args(&words).start().await?;
        let clients = Arc::new(Clients::of(shop.address()));
        for _ in 0..20 {
            clients.must_get(PATH).await?;
        }
        let statements = together(&proxy, &clients, shop.url(), params.reads).await?;
        let each = statements as f64 * 100.0 / f64::from(params.reads);
        let check = format!("{name}: statements for a hundred equal reads");
        lab.figure(&check, each, "");
        if is_shared {
            lab.check(check, "20 or fewer", format!("{each:.0}"), each <= 20.0);
        } else {
            lab.check(check, "90 or more", format!("{each:.0}"), each >= 90.0);
        }
        let stock = after_a_write(&fixture, shop.url()).await?;
        let check = format!("{name}: stock that a read sees after {WRITTEN} was written");
        let expected = if is_shared { 1 } else { WRITTEN.into() };
        lab.check_eq(check, expected, stock);
        let cells = [params.reads.to_string(), statements.to_string(), stock.to_string()];
        rows.push([vec![name.to_owned()], cells.to_vec()].concat());
    }
    let columns = ["reads", "at the same moment", "statements", "stock seen after the write"];
    lab.table("Equal reads", &columns, rows);
    Ok(())
}

/// Holds the database's answers back until all have come, and counts what it was asked.
async fn together(
    proxy: &Proxy,
    clients: &Arc<Clients>,
    url: &str,
    reads: u32,
) -> anyhow::Result<u64> {
    let before = proxy.messages();
    proxy.set(Fault::BlackHole);
    let mut all = JoinSet::new();
    for _ in 0..reads {
        let clients = Arc::clone(clients);
        all.spawn(async move { clients.must_get(PATH).await });
    }
    eventually("all have come", async || Ok((at_work(url).await? >= reads.into()).then_some(())))
        .await?;
    proxy.heal();
    for answer in all.join_all().await {
        answer?;
    }
    Ok(proxy.messages() - before)
}

/// One read has begun and waits inside PostgreSQL. Then the stock changes, and then another read begins: what does that one
/// see?
async fn after_a_write(fixture: &Fixture, url: &str) -> anyhow::Result<i64> {
    let read = || {
        let url = format!("{url}{PATH}");
        tokio::spawn(async move { anyhow::Ok(reqwest::get(url).await?.json::<Value>().await?) })
    };
    let mut gate = fixture.pool.begin().await?;
    sqlx::query("select pg_advisory_xact_lock(1)").execute(&mut *gate).await?;
    let first = read();
    somebody_waits("the first read has begun", &fixture.database).await?;
    let write = "update shelf set stock = $1 where id = 1";
    sqlx::query(write).bind(WRITTEN).execute(&fixture.pool).await?;
    let second = read();
    eventually("the second has come", async || Ok((at_work(url).await? == 2).then_some(())))
        .await?;
    gate.rollback().await?;
    first.await??;
    Ok(second.await??["stock"].as_i64().unwrap_or(-1))
}

async fn at_work(url: &str) -> anyhow::Result<u64> {
    let pressure: Value = reqwest::get(format!("{url}/pressure")).await?.json().await?;
    Ok(pressure["in_flight"].as_u64().unwrap_or_default())
}
