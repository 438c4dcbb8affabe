//! Who keeps the index? Products are found by attributes that nobody planned, and a program dies between two writes.

use std::time::{Duration, Instant};

use anyhow::Context;
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy, Side},
    load::median,
};
use redis::AsyncCommands;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::{
    compare::naive::put_by_hand,
    fixture::{Fixture, MODELS, make},
};
use crate::{
    entity::Kind,
    query::Search,
    store::{Model, Store},
};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Products
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u32).range(20..=100_000))]
    products: u32,
    /// Searches in each store, in turns
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(3..=10_000))]
    searches: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "search",
        "Products are found by attributes that nobody planned, the same ones by GIN over jsonb and by sets that the program \
         keeps in Redis; a program that keeps the sets command by command and dies in between leaves a product that is there \
         and is not found, and one script does not",
        &["--products", "60", "--searches", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/key_value.rs",
        replace: "redis.call(n < 3 + ARGV[5] and 'srem' or 'sadd', KEYS[n], ARGV[3])",
        with: "redis.call('sadd', KEYS[n], ARGV[3])",
        check: "key-value: changed products that are found by what they were",
    })
}

fn product(n: u32, colour: &str) -> Value {
    json!({ "name": "Shirt", "price_cents": 100 + n % 7, "colour": colour, "size": format!("{}", n % 5) })
}

const COLOURS: [&str; 4] = ["red", "green", "blue", "white"];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let mut stores = Vec::new();
    for (n, (model, name)) in (0..).zip(MODELS) {
        lab.progress(n, 5, format!("products are put into {name}"));
        let store = fixture.store(model)?;
        let begun = Instant::now();
        for n in 0..params.products {
            let colour = COLOURS[n as usize % 4];
            make(&store, Kind::Product, &format!("p{n}"), product(n, colour), 0).await?;
        }
        let ms = begun.elapsed().as_secs_f64() * 1e3 / f64::from(params.products);
        lab.figure(format!("{name}: a PUT with its index"), ms, "ms");
        stores.push((name, store));
    }
    lab.progress(3, 5, "products are searched");
    searches(&params, &lab, &stores).await?;
    changed(&params, &lab, &stores).await?;
    sizes(&lab, &fixture).await?;
    lab.progress(4, 5, "a writer dies between two commands");
    by_hand(&lab, &fixture).await?;
    by_script(&lab, &fixture).await
}

async fn ids(store: &Store, query: &str) -> anyhow::Result<Vec<String>> {
    let found = store.search(&Search::parse(query)?).await?;
    Ok(found.into_iter().map(|(id, _)| id).collect())
}

async fn searches(params: &Params, lab: &Lab, stores: &[(&str, Store)]) -> anyhow::Result<()> {
    let queries = [
        "colour=red",
        "colour=blue&size=2",
        "size=4&max_price=102",
        "max_price=101",
        "colour=pink",
    ];
    let mut differ = 0;
    for query in queries {
        let mut found = Vec::new();
        for (_, store) in stores {
            found.push(ids(store, query).await?);
        }
        differ += found.iter().filter(|it| **it != found[0]).count();
    }
    lab.check_eq("searches that find other products than the tables do", 0, differ);
    let mut times = vec![Vec::new(); stores.len()];
    for _ in 0..params.searches {
        for (times, (_, store)) in times.iter_mut().zip(stores) {
            let begun = Instant::now();
            ids(store, "colour=blue&size=2").await?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
    }
    let medians: Vec<_> = times.into_iter().map(median).collect();
    for (ms, (name, _)) in medians.iter().zip(stores) {
        lab.figure(format!("{name}: a search, median"), *ms, "ms");
    }
    lab.figure("a search: key-value ÷ tables, medians", medians[2] / medians[0], "");
    Ok(())
}

/// Every tenth product becomes another.
async fn changed(params: &Params, lab: &Lab, stores: &[(&str, Store)]) -> anyhow::Result<()> {
    for (name, store) in stores {
        for n in (0..params.products).step_by(10) {
            make(store, Kind::Product, &format!("p{n}"), product(n, "black"), 0).await?;
        }
        let mut stale = 0;
        for colour in COLOURS {
            let found = store.search(&Search::parse(&format!("colour={colour}"))?).await?;
            stale += found.iter().filter(|(_, it)| it["colour"] != json!(colour)).count();
        }
        lab.check_eq(
            format!("{name}: changed products that are found by what they were"),
            0,
            stale,
        );
    }
    Ok(())
}

async fn sizes(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    for (name, index) in [("tables", "products_more"), ("documents", "product_documents_body")] {
        // Entries that wait in the pending list belong to it too.
        let size = "select pg_relation_size($1::text::regclass)";
        let size: i64 = sqlx::query_scalar(size).bind(index).fetch_one(&fixture.pool).await?;
        lab.figure(format!("{name}: bytes of the GIN index"), size as f64, "bytes");
    }
    let column = "alter table products add column colour text generated always as (more ->> 'colour') stored;
                  create index products_colour on products (colour)";
    sqlx::raw_sql(column).execute(&fixture.pool).await?;
    let size = "select pg_relation_size('products_colour')";
    let size: i64 = sqlx::query_scalar(size).fetch_one(&fixture.pool).await?;
    lab.figure("tables: bytes of an index on one added column", size as f64, "bytes");
    let mut redis = fixture.keys.connection().await?;
    let sets: Vec<String> = redis.keys(format!("{}index:*", fixture.keys.prefix())).await?;
    let mut all = 0;
    for set in sets {
        let bytes: i64 = redis::cmd("MEMORY").arg("USAGE").arg(set).query_async(&mut redis).await?;
        all += bytes;
    }
    lab.figure("key-value: bytes of the sets", all as f64, "bytes");
    Ok(())
}

const PATIENCE: Duration = Duration::from_secs(10);

/// The writer's connection is cut before its second command.
async fn by_hand(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let url = fixture.keys.url();
    let proxy = Proxy::to_url(url).await?;
    let client = redis::Client::open(proxy.url(url)?)?;
    let mut redis = client.get_multiplexed_async_connection().await?;
    let (product, index) =
        ["by-hand:p", "by-hand:index"].map(|it| format!("{}{it}", fixture.keys.prefix())).into();
    let second = proxy.at_message(proxy.messages() + 2, Side::Before);
    let writing = put_by_hand(&mut redis, &product, &index, "{}");
    let cutting = async {
        let held = timeout(PATIENCE, second).await.context("no second command came")??;
        proxy.set(Fault::Cut);
        held.gone().await;
        anyhow::Ok(())
    };
    let (written, cut) = tokio::join!(writing, cutting);
    cut?;
    lab.check("by hand: the writer heard that it failed", true, written.is_err(), written.is_err());
    let mut redis = fixture.keys.connection().await?;
    let is_there: bool = redis.exists(&product).await?;
    let is_found: bool = redis.sismember(&index, &product).await?;
    lab.check_eq("by hand: the product is there and is not found", true, is_there && !is_found);
    Ok(())
}

/// Our own writer, cut before and after each of its messages.
async fn by_script(lab: &Lab, fixture: &Fixture) -> anyhow::Result<()> {
    let (url, looker) = (fixture.keys.url(), fixture.store(Model::KeyValue)?);
    let (mut cuts, mut disagree) = (0, 0);
    for message in 1..=2 {
        for side in [Side::Before, Side::After] {
            let proxy = Proxy::to_url(url).await?;
            let through = proxy.url(url)?;
            let store = fixture.store_through(Model::KeyValue, fixture.database.url(), &through)?;
            // The connection is there, and the scripts are known.
            store.ping().await?;
            let id = format!("cut-{message}-{side:?}").to_lowercase();
            let mark = json!({ "name": "Shirt", "price_cents": 1, "mark": id });
            let held = proxy.at_message(proxy.messages() + message, side);
            let put = make(&store, Kind::Product, &id, mark, 0);
            let cutting = async {
                let Ok(held) = timeout(Duration::from_secs(1), held).await else { return 0 };
                proxy.set(Fault::Cut);
                drop(held);
                1
            };
            let (_, cut) = tokio::join!(timeout(PATIENCE, put), cutting);
            cuts += cut;
            let is_there = looker.get(Kind::Product, &id, None).await.is_ok();
            let is_found = ids(&looker, &format!("mark={id}")).await? == [id];
            disagree += u32::from(is_there != is_found);
        }
    }
    lab.check("by one script: cuts that were made", "4 or more", cuts, cuts >= 4);
    lab.check_eq(
        "by one script: products that are there and not found, or the reverse",
        0,
        disagree,
    );
    Ok(())
}
