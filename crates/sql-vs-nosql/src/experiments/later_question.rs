//! What does a question cost that nobody planned? Revenue by country and month, over orders that are kept by customer.

use std::{collections::BTreeMap, time::Instant};

use lab::{Experiment, Lab, Sabotage, fault::Proxy, load::median};
use redis::{AsyncCommands, pipe};
use serde_json::{Value, json};
use sqlx::types::Json;
use time::{Duration, OffsetDateTime};

use super::fixture::{Fixture, MODELS, customer, lines_of, make};
use crate::{
    cases::client::Client,
    documents,
    entity::Kind,
    order::{Line, Order},
    store::Model,
    tables,
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Orders
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(10..=1_000_000))]
    orders: u32,
    /// Reports from each store, in turns
    #[arg(long, default_value_t = 11, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    reports: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "later-question",
        "A report that nobody planned is one statement for tables and one for documents, and needs no change of what is kept; \
         a key-value store answers it by sending every order to the program, and cannot promise that the report shows one \
         moment",
        &["--orders", "300", "--reports", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/key_value.rs",
        replace: "from + many - 1",
        with: "from + many",
        check: "key-value: rows of the report that are wrong",
    })
}

const COUNTRIES: [&str; 4] = ["DE", "FR", "GB", "PL"];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    lab.progress(0, 2, "orders are kept");
    for (model, _) in MODELS {
        let store = fixture.store(model)?;
        make(&store, Kind::Product, "tea", json!({ "name": "Tea", "price_cents": 100 }), 0).await?;
        for (n, country) in COUNTRIES.into_iter().enumerate() {
            customer(&store, &format!("c{n}"), country, 0).await?;
        }
    }
    let orders: Vec<_> = (0..params.orders).map(order).collect();
    keep(&fixture, &orders).await?;
    let expected = expected(&orders);
    lab.progress(1, 2, "reports are asked for");
    let redis = Proxy::to_url(fixture.keys.url()).await?;
    let database = Proxy::to_url(fixture.database.url()).await?;
    let (database_url, redis_url) =
        (database.url(fixture.database.url())?, redis.url(fixture.keys.url())?);
    let mut programs = Vec::new();
    for (_, name) in MODELS {
        programs.push(fixture.serve_through(name, &database_url, &redis_url).start().await?);
    }
    let (mut times, mut seen) = (vec![Vec::new(); 3], vec![(0, 0, 0); 3]);
    // The first of each store also connects and prepares its statement: it is not counted.
    for turn in 0..=params.reports {
        for (n, child) in programs.iter().enumerate() {
            let proxy = if n == 2 { &redis } else { &database };
            let client = Client::at(child.url())?;
            let before = (proxy.messages(), proxy.bytes().1);
            let begun = Instant::now();
            let rows = report(&client).await?;
            if turn > 0 {
                times[n].push(begun.elapsed().as_secs_f64() * 1e3);
            }
            let wrong = expected.iter().filter(|it| rows.get(it.0) != Some(it.1)).count();
            let more = rows.keys().filter(|it| !expected.contains_key(*it)).count();
            seen[n] = (wrong + more, proxy.messages() - before.0, proxy.bytes().1 - before.1);
        }
    }
    let code = [
        include_str!("../tables.rs"),
        include_str!("../documents.rs"),
        include_str!("../key_value.rs"),
    ];
    let whole: u64 = orders.iter().map(|it| json!(it).to_string().len() as u64).sum();
    let (mut table, mut medians) = (Vec::new(), Vec::new());
    for (n, (model, name)) in MODELS.into_iter().enumerate() {
        let ((wrong, messages, bytes), ms) = (seen[n], median(times[n].clone()));
        let lines = lines_of(code[n], "revenue")?;
        lab.check_eq(format!("{name}: rows of the report that are wrong"), 0, wrong);
        if model == Model::KeyValue {
            let check = "key-value: bytes that came to the program for one report";
            let all = bytes >= whole;
            lab.check(check, format!("{whole} or more: every order"), bytes, all);
        } else {
            let check = format!("{name}: messages to the store for one report");
            lab.check(check, "1 to 3", messages, (1..=3).contains(&messages));
        }
        let client = Client::at(programs[n].url())?;
        let moment = client.target.get("reports/revenue?by=month&snapshot=true").await?;
        let expected = if model == Model::KeyValue { 501 } else { 200 };
        let check = format!("{name}: the answer to snapshot=true");
        lab.check_eq(check, expected, moment.status().as_u16());
        lab.figure(format!("{name}: a report, median"), ms, "ms");
        lab.figure(format!("{name}: bytes that came for a report"), bytes as f64, "bytes");
        lab.figure(format!("{name}: lines of code"), lines as f64, "");
        let cells =
            [messages.to_string(), bytes.to_string(), format!("{ms:.1}"), lines.to_string()];
        table.push([vec![name.to_owned()], cells.to_vec()].concat());
        medians.push(ms);
    }
    lab.figure("a report from key-value ÷ from tables, medians", medians[2] / medians[0], "");
    lab.figure("a report from documents ÷ from tables, medians", medians[1] / medians[0], "");
    let columns = ["store", "messages", "bytes", "ms, median", "lines of code"];
    lab.table("One report", &columns, table);
    Ok(())
}

/// Order number `n`: of one of the customers, in one of twelve months.
fn order(n: u32) -> Order {
    let ordered_at = OffsetDateTime::UNIX_EPOCH
        + Duration::days(20_000)
        + Duration::hours(i64::from(n * 29 % 8_760));
    let (quantity, price_cents) = (i64::from(n % 3) + 1, 100);
    let line = Line { product: "tea".to_owned(), name: "Tea".to_owned(), quantity, price_cents };
    let (id, customer) = (format!("o{n:08}"), format!("c{}", n as usize * 7 % COUNTRIES.len()));
    Order { id, customer, ordered_at, total_cents: quantity * price_cents, lines: vec![line] }
}

/// Thousands of requests would take longer than all that is measured.
async fn keep(fixture: &Fixture, orders: &[Order]) -> anyhow::Result<()> {
    let mut redis = fixture.keys.connection().await?;
    let prefix = fixture.keys.prefix();
    let mut tx = fixture.pool.begin().await?;
    for some in orders.chunks(500) {
        let mut all = pipe();
        for order in some {
            for sql in [tables::SQL.keep_order, documents::SQL.keep_order] {
                sqlx::query(sql).bind(Json(order)).execute(&mut *tx).await?;
            }
            let key = format!("{prefix}order:{}", order.id);
            all.set(&key, serde_json::to_string(order)?).ignore();
            all.lpush(format!("{prefix}index:orders"), key).ignore();
        }
        let () = all.query_async(&mut redis).await?;
    }
    tx.commit().await?;
    sqlx::raw_sql("vacuum analyze").execute(&fixture.pool).await?;
    let kept: usize = redis.llen(format!("{prefix}index:orders")).await?;
    anyhow::ensure!(kept == orders.len(), "{kept} orders in Redis");
    Ok(())
}

type Rows = BTreeMap<(String, String), (i64, i64)>;

fn expected(orders: &[Order]) -> Rows {
    let mut rows = Rows::new();
    for order in orders {
        let n = order.customer[1..].parse::<usize>().unwrap_or_default();
        let (year, month) = (order.ordered_at.year(), u8::from(order.ordered_at.month()));
        let row =
            rows.entry((COUNTRIES[n].to_owned(), format!("{year:04}-{month:02}"))).or_default();
        *row = (row.0 + 1, row.1 + order.total_cents);
    }
    rows
}

/// A program without this call reports nothing.
async fn report(client: &Client) -> anyhow::Result<Rows> {
    let answer = client.target.get("reports/revenue?by=country,month").await?;
    let answer: Value = serde_json::from_str(&answer.text().await?).unwrap_or_default();
    let text = |row: &Value, name: &str| row[name].as_str().unwrap_or_default().to_owned();
    let number = |row: &Value, name: &str| row[name].as_i64().unwrap_or_default();
    let rows = answer["rows"].as_array().into_iter().flatten();
    let row = |it: &Value| {
        ((text(it, "country"), text(it, "month")), (number(it, "orders"), number(it, "cents")))
    };
    Ok(rows.map(row).collect())
}
