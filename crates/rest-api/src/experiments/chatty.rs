//! A hundred users with their orders: by how many requests, and what do they cost with 20 ms of delay?

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use conform::expect::json_of;
use futures_util::{StreamExt, TryStreamExt, stream};
use lab::{
    Experiment, Lab, Sabotage,
    fault::{Fault, Proxy},
};
use serde_json::{Value, json};

use super::fixture::{Fixture, serve_here};
use crate::cases::client::Client;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Users, each with ten orders
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i32).range(10..=100))]
    users: i32,
    /// Milliseconds that a request takes to the server and back, beside its work
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(0..=1_000))]
    delay: u64,
    /// How often the expensive query of the graph goes from orders to their user and back
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=4))]
    circles: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "chatty",
        "A hundred users with their orders: N+1 requests take a hundred times the delay, one request with include or GraphQL \
         takes one. A nested GraphQL query makes the answer a thousand times as large, until its depth and cost are limited",
        &["--users", "20", "--circles", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/store.rs",
        replace: "let mut orders = self.orders_of(&ids).await?;",
        with: r"let mut orders = HashMap::new();
            for id in ids {
                orders.extend(self.orders_of(&[id]).await?);
            }",
        check: "include: messages to PostgreSQL are few",
    })
}

const ORDERS: i32 = 10;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    fixture.fill(params.users, ORDERS).await?;
    let to_database = Proxy::to_url(fixture.database.url()).await?;
    let url = to_database.url(fixture.database.url())?;
    let child = fixture.serve().env("DATABASE_URL", url).start().await?;
    let far = Proxy::to(child.address()).await?;
    // In each direction; a connection is made before.
    far.set(Fault::Delay(Duration::from_micros(params.delay * 500)));
    let client = Client::at(&format!("http://{}", far.address()))?;
    let users = params.users;
    let include = format!("users?limit={users}&include=orders");
    let graph = json!({ "query": format!("{{ users(first: {users}) {{ id name orders {{ id item state }} }} }}") });
    let (mut rows, mut times) = (Vec::new(), Vec::new());
    for (n, way) in
        ["N+1, one by one", "N+1, six at a time", "include", "GraphQL"].into_iter().enumerate()
    {
        lab.progress(n as u64, 5, way);
        // Connections and prepared statements are there before it is measured.
        let mut seen = None;
        for _ in 0..2 {
            let before = (to_database.messages(), far.bytes().1, Instant::now());
            let (requests, orders) = match way {
                "include" => {
                    let page = json_of(client.get(&include, &[]).await?, 200).await?;
                    (1, count(&page["items"]))
                }
                "GraphQL" => {
                    let answer = json_of(client.target.post("graphql", &graph).await?, 200).await?;
                    (1, count(&answer["data"]["users"]))
                }
                _ => n_plus_one(&client, users, if n == 0 { 1 } else { 6 }).await?,
            };
            let time = before.2.elapsed().as_secs_f64() * 1_000.0;
            let messages = to_database.messages() - before.0;
            seen = Some((requests, orders, far.bytes().1 - before.1, messages, time));
        }
        let (requests, orders, bytes, messages, time) = seen.context("nothing was asked")?;
        rows.push(vec![
            way.to_owned(),
            requests.to_string(),
            bytes.to_string(),
            messages.to_string(),
            format!("{time:.0}"),
        ]);
        let expected = usize::try_from(users * ORDERS)?;
        lab.check_eq(format!("{way}: orders that came"), expected, orders);
        lab.figure(format!("{way}: requests"), f64::from(requests), "");
        lab.figure(format!("{way}: messages to PostgreSQL"), messages as f64, "");
        lab.figure(format!("{way}: bytes"), bytes as f64, "bytes");
        lab.figure(format!("{way}: time"), time, "ms");
        times.push((messages, time));
    }
    let columns = ["way", "requests", "bytes", "messages to PostgreSQL", "time (ms)"];
    lab.table("Users with their orders", &columns, rows);
    lab.figure("N+1, one by one ÷ include, time", times[0].1 / times[2].1, "");
    for (at, way) in [(2, "include"), (3, "GraphQL")] {
        // Two statements, and perhaps a ping.
        lab.check(
            format!("{way}: messages to PostgreSQL are few"),
            "at most 5",
            times[at].0,
            times[at].0 <= 5,
        );
    }
    lab.progress(4, 5, "a nested query");
    nested(&lab, &fixture, params.circles).await
}

fn count(users: &Value) -> usize {
    let users = users.as_array().into_iter().flatten();
    users.filter_map(|user| user["orders"].as_array()).map(Vec::len).sum()
}

/// The list, and then each user's orders; so many requests, and so many orders.
async fn n_plus_one(client: &Client, users: i32, at_once: usize) -> anyhow::Result<(u32, usize)> {
    let page = json_of(client.get(&format!("users?limit={users}"), &[]).await?, 200).await?;
    let users = page["items"].as_array().context("no items")?.clone();
    let requests = 1 + u32::try_from(users.len())?;
    let orders = stream::iter(users).map(async |user| {
        let path = user["_links"]["orders"]["href"].as_str().context("no link")?;
        let orders = json_of(client.get(path, &[]).await?, 200).await?;
        anyhow::Ok(orders["items"].as_array().context("no items")?.len())
    });
    let orders: Vec<usize> = orders.buffer_unordered(at_once).try_collect().await?;
    Ok((requests, orders.iter().sum()))
}

/// The same two users and their orders, round and round: every circle multiplies the answer by ten.
async fn nested(lab: &Lab, fixture: &Fixture, circles: u32) -> anyhow::Result<()> {
    let (_here, unlimited) = serve_here(fixture.router(false)?).await?;
    let (child, limited) = fixture.start().await?;
    let mut query = "id".to_owned();
    for _ in 0..circles {
        query = format!("id user {{ orders {{ {query} }} }}");
    }
    let ask = |orders: &str| json!({ "query": format!("{{ users(first: 2) {{ id orders {{ {orders} }} }} }}") });
    let flat = timed(&unlimited, &ask("id")).await?;
    let deep = timed(&unlimited, &ask(&query)).await?;
    let refused = timed(&limited, &ask(&query)).await?;
    let factor = 10_usize.pow(circles);
    lab.figure(
        "nested, without limits: bytes of the answer ÷ those of the flat one",
        deep.1 as f64 / flat.1 as f64,
        "",
    );
    lab.figure("nested, without limits: time ÷ that of the flat one", deep.2 / flat.2, "");
    lab.figure(
        "nested, without limits: bytes of the query ÷ those of the flat one",
        ask(&query).to_string().len() as f64 / ask("id").to_string().len() as f64,
        "",
    );
    let grown = deep.1 / flat.1;
    lab.check(
        "nested, without limits: how often the flat answer fits into it",
        format!("{} or more", factor / 2),
        grown,
        grown >= factor / 2,
    );
    lab.check_eq("nested, with limits: users that the answer has", 0, refused.0);
    let small = refused.1 < 1_000;
    lab.check("nested, with limits: bytes of the answer", "less than 1000", refused.1, small);
    ensure!(limited.target.answers().await, "{} is gone", child.url());
    Ok(())
}

/// Users in the answer, its bytes, and its time in milliseconds.
async fn timed(client: &Client, query: &Value) -> anyhow::Result<(usize, usize, f64)> {
    let begun = Instant::now();
    let answer = client.target.post("graphql", query).await?;
    let text = answer.text().await?;
    let time = begun.elapsed().as_secs_f64() * 1_000.0;
    let answer: Value = serde_json::from_str(&text)?;
    Ok((answer["data"]["users"].as_array().map_or(0, Vec::len), text.len(), time))
}
