//! What does the saga cost, beside the commits that it makes?

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use futures_util::future::BoxFuture;
use lab::{
    Experiment, Lab, Sabotage, Target,
    database::Database,
    load::{self, Outcome, Stop, http::Connection},
};
use serde_json::Value;
use sqlx::{Connection as _, PgConnection, types::Json};
use uuid::Uuid;

use super::{
    books::Books,
    fixture::{Fixture, book_order},
};
use crate::{
    caller::body,
    log::{Log, Status},
    order::Order,
    saga::{Call, Record},
    store,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Orders in each measurement
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u32).range(10..=100_000))]
    orders: u32,
    /// Clients that order without a pause, sagas at a time, and clients that commit without a pause: as many of each,
    /// since commits that come together share a write to the disk
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    clients: u16,
    /// Measurements of each of the two, by turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "throughput",
        "An order as a saga costs little more than the commits that it makes",
        &["--orders", "100", "--rounds", "2", "--clients", "8"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/orchestrator.rs",
        replace: "pending_records.push(Record::Asked { call });",
        with: "",
        check: "records in the logs of both",
    })
}

const STOCK: i64 = 1_000_000;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let (ours, bare) = (Fixture::of(&lab).await?, Fixture::of(&lab).await?);
    ours.parts.stock(STOCK).await?;
    bare.parts.stock(STOCK).await?;
    // Nothing is to be given up, however slow the machine is.
    let serve = ours.serve().args(&["--attempts", "10000", "--concurrency"]);
    let child = serve.arg(params.clients.to_string()).start().await?;
    let (mut ratios, mut rows, mut failed) = (Vec::new(), Vec::new(), 0);
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..params.rounds {
        lab.progress(round.into(), params.rounds.into(), "measured by turns");
        let commits = commits(&bare, &params, round).await?;
        let (posted, seconds) = sagas(child.address(), &ours.orders, &params, round).await?;
        let sagas = f64::from(params.orders) / seconds;
        ratios.push(sagas / commits.throughput());
        rates[0].push(sagas);
        rates[1].push(commits.throughput());
        failed += commits.failed + posted.failed;
        rows.push(vec![
            (round + 1).to_string(),
            format!("{:.0}", commits.throughput()),
            format!("{sagas:.0}"),
            format!("{:.2}", sagas / commits.throughput()),
        ]);
    }
    let columns = ["round", "orders/s as bare commits", "orders/s as sagas", "ratio"];
    lab.table("Each measurement", &columns, rows);
    lab.figure_with_target(
        "orders a second as sagas ÷ as bare commits, median",
        load::median(ratios),
        "",
        Target::AtLeast(0.6),
    );
    let [sagas, bare_commits] = rates.map(load::median);
    lab.figure("orders a second as sagas, median", sagas, "orders/s");
    lab.figure("orders a second as bare commits, median", bare_commits, "orders/s");
    let all = i64::from(params.orders + u32::from(params.clients)) * i64::from(params.rounds);
    lab.check_eq("calls that failed", 0, failed);
    // What was measured is the real thing, on both sides.
    for (name, fixture) in [("the saga", &ours), ("the bare commits", &bare)] {
        let books = Books::of(&fixture.parts).await?;
        lab.check_eq(format!("items sold by {name}"), all, books.sold);
        lab.check_eq(format!("parcels booked by {name}"), all, books.parcels);
    }
    let [sagas, commits] = [records(ours.orders.url()).await?, records(bare.orders.url()).await?];
    lab.check_eq("records in the logs of both", commits, sagas);
    Ok(())
}

async fn records(url: &str) -> anyhow::Result<i64> {
    let mut connection = PgConnection::connect(url).await?;
    // A call that had to be made again leaves a record more; those of the way itself must be the same.
    let count = sqlx::query_scalar(
        "select count(*) from saga_log where record ->> 'kind' in ('asked', 'done', 'confirmed')",
    )
    .fetch_one(&mut connection)
    .await?;
    connection.close().await?;
    Ok(count)
}

/// An order for each client, which warms everything up, and then those that are measured.
async fn sagas(
    host: &str,
    database: &Database,
    params: &Params,
    round: u32,
) -> anyhow::Result<(Outcome, f64)> {
    let clients = params.clients;
    confirmed(host, database, clients, clients.into(), &format!("{round}-first")).await?;
    confirmed(host, database, clients, params.orders, &round.to_string()).await
}

/// Sends so many orders, and waits until all are confirmed; how long that took in all.
async fn confirmed(
    host: &str,
    database: &Database,
    clients: u16,
    orders: u32,
    name: &str,
) -> anyhow::Result<(Outcome, f64)> {
    let mut senders = Vec::new();
    for client in 0..clients {
        let json = book_order("pm_card_visa", "GB").to_string();
        senders.push((Connection::open(host).await?, json, format!("{name}-{client}"), 0_u64));
    }
    let begun = Instant::now();
    let posted =
        load::closed(senders, Stop::Count(orders.into()), |(connection, json, name, n)| {
            Box::pin(async move {
                *n += 1;
                let key = [("idempotency-key", format!("{name}-{n}"))];
                let request = connection.post_with("/orders", &key, json);
                // On a busy machine it may say 503. The same key again can do no harm.
                let begun = Instant::now();
                while begun.elapsed() < Duration::from_mins(1) {
                    if connection.send(&request).await? == 202 {
                        return Ok(());
                    }
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                anyhow::bail!("the order is not accepted")
            })
        })
        .await?;
    let mut direct = PgConnection::connect(database.url()).await?;
    loop {
        let open: bool =
            sqlx::query_scalar("select exists (select from orders where due_at is not null)")
                .fetch_one(&mut direct)
                .await?;
        if !open {
            break;
        }
        let patience = Duration::from_mins(2) + Duration::from_millis(50) * orders;
        ensure!(begun.elapsed() < patience, "the orders do not end");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    direct.close().await?;
    Ok((posted, seconds))
}

/// A connection to each database, as one client that does nothing but commit.
struct Bare {
    orders: PgConnection,
    inventory: PgConnection,
    payment: PgConnection,
    shipping: PgConnection,
    order: Order,
    name: String,
    number: u64,
}

/// The very statements that a saga commits, one after another, in nine commits: without HTTP, without claiming, and
/// without reading anything.
async fn commits(fixture: &Fixture, params: &Params, round: u32) -> anyhow::Result<Outcome> {
    let (parts, mut clients) = (&fixture.parts, Vec::new());
    for client in 0..params.clients {
        clients.push(Bare {
            orders: PgConnection::connect(fixture.orders.url()).await?,
            inventory: PgConnection::connect(parts.inventory.url()).await?,
            payment: PgConnection::connect(parts.payment.url()).await?,
            shipping: PgConnection::connect(parts.shipping.url()).await?,
            order: serde_json::from_value(book_order("pm_card_visa", "GB"))?,
            name: format!("{round}-{client}"),
            number: 0,
        });
    }
    // A connection's first statements are slower: they are parsed, and the process behind it knows no table yet.
    for client in &mut clients {
        one(client).await?;
    }
    load::closed(clients, Stop::Count(params.orders.into()), one).await
}

fn one(bare: &mut Bare) -> BoxFuture<'_, anyhow::Result<()>> {
    Box::pin(async move {
        bare.number += 1;
        let id = Uuid::now_v7();
        sqlx::query(store::orders::INSERT)
            .bind(id)
            .bind(format!("{}-{}", bare.name, bare.number))
            .bind(Json(&bare.order))
            .bind(Json(Log::FIRST))
            .execute(&mut bare.orders)
            .await?;
        let calls = [Call::Reserve, Call::Charge, Call::Book, Call::Sell];
        for (number, &call) in calls.iter().enumerate() {
            step(bare, call, id).await?;
            let next = calls.get(number + 1).map(|&call| Record::Asked { call });
            let status = if next.is_some() { Status::Pending } else { Status::Confirmed };
            let records = [Record::Done { call }, next.unwrap_or(Record::Confirmed)];
            append(&mut bare.orders, id, &records, status).await?;
        }
        Ok(())
    })
}

async fn step(bare: &mut Bare, call: Call, id: Uuid) -> anyhow::Result<()> {
    let (key, request): (_, Value) = (format!("{id}.{call}"), body(call, id, &bare.order));
    let (connection, statement) = match call {
        Call::Reserve => (&mut bare.inventory, store::inventory::RESERVE),
        Call::Charge => (&mut bare.payment, store::calls::ACT),
        Call::Book => (&mut bare.shipping, store::calls::ACT),
        _ => {
            let sold: i64 = sqlx::query_scalar(store::inventory::SELL)
                .bind(id)
                .bind(key)
                .fetch_one(&mut bare.inventory)
                .await?;
            ensure!(sold == 1, "nothing was sold");
            return Ok(());
        }
    };
    let mut query = sqlx::query(statement).bind(id).bind(key).bind(request);
    if call != Call::Reserve {
        query = query.bind(None::<&str>).bind(call.to_string());
    }
    query.fetch_optional(connection).await?.context("no row")?;
    Ok(())
}

async fn append(
    connection: &mut PgConnection,
    id: Uuid,
    records: &[Record],
    status: Status,
) -> anyhow::Result<()> {
    sqlx::query(store::APPEND)
        .bind(id)
        .bind(0_i64)
        .bind(records.iter().map(Json).collect::<Vec<_>>())
        .bind(status.to_string())
        .bind(status == Status::Pending)
        .bind((status == Status::Pending).then_some(10_000.0))
        .fetch_one(connection)
        .await?;
    Ok(())
}
