//! How large is it? The same customers in tables, in documents and under keys.

use std::collections::BTreeMap;

use anyhow::Context;
use lab::{Experiment, Lab, Need, Sabotage, Service};
use redis::{aio::MultiplexedConnection, cmd, pipe};
use serde_json::json;

use super::fixture::{Fixture, MODELS};
use crate::{entity::Kind, store::Store};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Customers
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(100..=10_000_000))]
    customers: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "size",
        "The same customers are larger as documents than as rows, since each document repeats the names of its fields; Redis \
         keeps all of them in memory, and its log on disk as well",
        &["--customers", "3000"],
        run,
    )
    .needs(&[Need::Own(Service::Redis)])
    .sabotage(Sabotage {
        file: "src/tables.rs",
        replace: r#""select body from customer_rows where id = $1""#,
        with: r#""select more from customers where id = $1""#,
        check: "tables: customers that are not as they were written",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    // Of its own, so that all that is in its memory is ours.
    let server = lab.own_server(Service::Redis).await?;
    let url = server.url()?;
    let mut redis = redis::Client::open(&*url)?.get_multiplexed_async_connection().await?;
    lab.progress(0, 3, "rows and documents");
    in_postgres(&params, &fixture).await?;
    lab.progress(1, 3, "keys");
    let before = memory(&mut redis).await?;
    under_keys(&params, &mut redis).await?;
    let memory = memory(&mut redis).await? - before;
    lab.progress(2, 3, "customers are read");
    for (model, name) in MODELS {
        let store = Store::new(model, (fixture.database.url(), None), (&url, ""))?;
        let mut wrong = 0;
        for n in (0..params.customers).step_by(params.customers as usize / 50) {
            let (seen, _) = store.get(Kind::Customer, &format!("c{n}"), None).await?;
            wrong += u32::from(json!(seen) != json!(fields(n)));
        }
        lab.check_eq(format!("{name}: customers that are not as they were written"), 0, wrong);
    }
    let (tables, documents) =
        (disk(&fixture, "customers").await?, disk(&fixture, "customer_documents").await?);
    let log = info(&mut redis, "persistence", "aof_current_size").await?;
    let each = f64::from(params.customers);
    let sizes = [
        ("tables: on disk, with the index", tables),
        ("documents: on disk, with the index", documents),
        ("key-value: in memory", memory),
        ("key-value: the log on disk", log),
    ];
    let mut rows = Vec::new();
    for (name, bytes) in sizes {
        lab.figure(format!("{name}, for each customer"), bytes / each, "bytes");
        rows.push(vec![name.to_owned(), format!("{bytes:.0}"), format!("{:.0}", bytes / each)]);
    }
    let check = "documents: bytes on disk, more than in tables";
    lab.check(check, format!("more than {tables:.0}"), documents, documents > tables);
    // The text alone has this size.
    let text: usize = (0..params.customers).map(|n| json!(fields(n)).to_string().len()).sum();
    lab.check(
        "key-value: bytes in memory, more than the text",
        format!("more than {text}"),
        memory,
        memory > text as f64,
    );
    lab.table("The same customers", &["where", "bytes", "for each"], rows);
    Ok(())
}

/// Customer number `n`. All three stores have the same.
fn fields(n: u32) -> BTreeMap<&'static str, serde_json::Value> {
    BTreeMap::from([
        ("name", json!(format!("Customer {n}"))),
        ("country", json!("GB")),
        ("phones", json!([format!("+44 {n}")])),
        ("newsletter", json!(n.is_multiple_of(2))),
        ("favourite", json!({ "tea": "green", "cup": n % 7 })),
        ("balance_cents", json!(n)),
    ])
}

/// One statement for each, since a hundred thousand requests would take minutes.
async fn in_postgres(params: &Params, fixture: &Fixture) -> anyhow::Result<()> {
    let fill = "insert into customers (id, name, country, phones, more, balance_cents)
                select 'c' || n, 'Customer ' || n, 'GB', array['+44 ' || n],
                    jsonb_build_object('newsletter', n % 2 = 0, 'favourite', jsonb_build_object('tea', 'green', 'cup', n % 7)), n
                from generate_series(0, $1 - 1) as n";
    sqlx::query(fill).bind(i64::from(params.customers)).execute(&fixture.pool).await?;
    let copy = "insert into customer_documents (id, body) select id, body from customer_rows";
    sqlx::raw_sql(copy).execute(&fixture.pool).await?;
    Ok(())
}

/// As the program keeps them: a hash with the text and the amount.
async fn under_keys(params: &Params, redis: &mut MultiplexedConnection) -> anyhow::Result<()> {
    let all: Vec<_> = (0..params.customers).collect();
    for some in all.chunks(1_000) {
        let mut fill = pipe();
        for n in some {
            let mut fields = fields(*n);
            fields.remove("balance_cents");
            let (key, text) = (format!("customer:c{n}"), json!(fields).to_string());
            fill.hset_multiple(key, &[("body", text), ("amount", n.to_string())]).ignore();
        }
        let () = fill.query_async(redis).await?;
    }
    Ok(())
}

async fn disk(fixture: &Fixture, table: &str) -> anyhow::Result<f64> {
    let size = "select pg_total_relation_size($1::text::regclass)";
    let size: i64 = sqlx::query_scalar(size).bind(table).fetch_one(&fixture.pool).await?;
    Ok(size as f64)
}

async fn memory(redis: &mut MultiplexedConnection) -> anyhow::Result<f64> {
    info(redis, "memory", "used_memory").await
}

/// A number that Redis tells about itself.
async fn info(redis: &mut MultiplexedConnection, section: &str, name: &str) -> anyhow::Result<f64> {
    let about: String = cmd("INFO").arg(section).query_async(redis).await?;
    let values = about.lines().filter_map(|line| line.trim().split_once(':'));
    let value = values.filter(|(key, _)| *key == name).map(|(_, value)| value).next();
    Ok(value.with_context(|| format!("INFO has no {name}"))?.parse()?)
}
