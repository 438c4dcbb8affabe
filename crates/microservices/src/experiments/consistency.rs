//! The process dies between two writes. Which of the two is missing?

use std::{collections::BTreeSet, time::Duration};

use anyhow::Context;
use conform::target::within;
use lab::{
    Experiment, Lab, Need, Sabotage, Service,
    child::Child,
    database::Database,
    fault::{Fault, Proxy, Side},
};
use reqwest::Client;
use serde_json::json;
use sqlx::PgPool;
use tokio::time::timeout;
use uuid::Uuid;

use super::fixture::{Fixture, Setup, queues};
use crate::module::Module::{Orders, Recommendations};

/// Only a limit.
const SOON: Duration = Duration::from_secs(30);
/// What stands in the message to the broker that tells of an order.
const TOLD: &str = "order_placed";
/// Where the orders' service takes questions.
const OURS: &str = "/internal/orders";
const LOST: &str = "with an outbox: orders that the others have never heard of";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Kills in each of the two ways
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    kills: u32,
    /// Orders between two kills
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    orders: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "consistency",
        "An order is written to a database and its event to a broker. Each kill between the two writes loses an event for ever, \
         and no error tells of it. With an outbox none is lost",
        &["--kills", "2", "--orders", "5"],
        run,
    )
    .needs(&[Need::Shared(Service::RabbitMq)])
    .sabotage(Sabotage {
        file: "src/events.rs",
        replace: "select id, event from {schema}.outbox order by id limit 100",
        with: "delete from {schema}.outbox returning id, event",
        check: LOST,
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let queues = queues(&lab).await?;
    // Without events, so that the only messages to the broker are those of the orders.
    let mut services = fixture.services(&Setup::default()).await?;
    services.customer()?.fill(1).await?;
    services.child(Orders)?.kill().await?;
    services.child(Recommendations)?.kill().await?;
    let setup = Setup { queues: Some(&queues), ..Setup::default() };
    let _recommendations = fixture.prepared(Recommendations, &setup, &services).start().await?;
    let network = Proxy::to_url(queues.url()).await?;
    let through = network.url(queues.url())?;
    let orders = fixture.prepared(Orders, &setup, &services);
    let mut orders = orders.args(&["--amqp-url", &through, "--dual-write"]).start().await?;
    let books = Books::of(&fixture).await?;
    let mut rows = Vec::new();
    let mut lost = Vec::new();
    for (way, path) in [("naive", "/naive-orders"), ("with an outbox", OURS)] {
        let mut killing = Killing { way, path, placed: 0, orders: &mut orders, network: &network };
        killing.all(&lab, params).await?;
        let placed = killing.placed;
        let missing = books.missing(&orders).await?;
        rows.push(vec![
            way.to_owned(),
            placed.to_string(),
            params.kills.to_string(),
            missing.to_string(),
        ]);
        lost.push(missing);
        // The next way begins with nothing missing.
        books.forget().await?;
    }
    lab.table("Killed between two writes", &["events", "orders", "kills", "never heard of"], rows);
    let most = u64::from(params.kills);
    let enough = lost[0] * 10 >= most * 9 && lost[0] > 0;
    lab.check(
        "naive: orders that the others have never heard of",
        format!("{most}, nine of ten at least"),
        lost[0],
        enough,
    );
    lab.check_eq(LOST, 0, lost[1]);
    lab.figure(
        "naive: events lost for each kill between the two writes",
        lost[0] as f64 / most as f64,
        "",
    );
    lab.figure(LOST, lost[1] as f64, "");
    Ok(())
}

/// What both sides know.
struct Books {
    orders: PgPool,
    heard: PgPool,
}

impl Books {
    async fn of(fixture: &Fixture) -> anyhow::Result<Self> {
        let pool = async |module| fixture.of_service(module).map(Database::pool)?.await;
        Ok(Self { orders: pool(Orders).await?, heard: pool(Recommendations).await? })
    }

    /// How many orders the recommendations do not know when they know one that was placed after all of them.
    async fn missing(&self, orders: &Child) -> anyhow::Result<u64> {
        // A last order in the way that works: events come in their order.
        let last = Uuid::new_v4().to_string();
        let known = async || -> anyhow::Result<(BTreeSet<Uuid>, BTreeSet<Uuid>)> {
            let placed: Vec<Uuid> =
                sqlx::query_scalar("select id from orders.orders").fetch_all(&self.orders).await?;
            let heard = "select order_id from recommendations.bought";
            let heard: Vec<Uuid> = sqlx::query_scalar(heard).fetch_all(&self.heard).await?;
            Ok((placed.into_iter().collect(), heard.into_iter().collect()))
        };
        let told = within(SOON, "the recommendations hear of the last order", async || {
            // Again under the same key, if it was not taken.
            place(orders.url(), OURS, &last).await;
            let find = sqlx::query_scalar::<_, Uuid>("select id from orders.orders where key = $1");
            let id = find.bind(&last).fetch_optional(&self.orders).await?;
            let (_, heard) = known().await?;
            Ok(id.filter(|id| heard.contains(id)).map(drop))
        });
        told.await?;
        let (placed, heard) = known().await?;
        Ok(placed.difference(&heard).count() as u64)
    }

    async fn forget(&self) -> anyhow::Result<()> {
        sqlx::query("delete from orders.orders").execute(&self.orders).await?;
        Ok(())
    }
}

/// The orders' service, killed again and again.
struct Killing<'a> {
    way: &'a str,
    path: &'a str,
    placed: u64,
    orders: &'a mut Child,
    network: &'a Proxy,
}

impl Killing<'_> {
    async fn all(&mut self, lab: &Lab, params: Params) -> anyhow::Result<()> {
        for kill in 0..params.kills {
            lab.progress(kill.into(), params.kills.into(), self.way);
            for order in 0..params.orders {
                let key = format!("{}-{kill}-{order}", self.path);
                self.placed += u64::from(place(self.orders.url(), self.path, &key).await);
            }
            self.placed += 1;
            self.between(&format!("{}-{kill}-killed", self.path)).await?;
        }
        Ok(())
    }

    /// Kills the service when it has written an order, and its event is on the way to the broker.
    async fn between(&mut self, key: &str) -> anyhow::Result<()> {
        // Until what was sent for earlier orders has arrived.
        let quiet = within(SOON, "nothing is on the way", async || {
            let before = self.network.messages();
            tokio::time::sleep(Duration::from_millis(150)).await;
            Ok((self.network.messages() == before).then_some(()))
        });
        quiet.await?;
        let next = self.network.at_message_with(TOLD, Side::Before);
        let url = self.orders.url().to_owned();
        let (path, key) = (self.path.to_owned(), key.to_owned());
        let placing = tokio::spawn(async move { place(&url, &path, &key).await });
        let held = timeout(SOON, next).await.context("no event was sent")??;
        self.orders.kill().await?;
        self.network.set(Fault::Cut);
        timeout(SOON, held.gone()).await.context("the connection stays open")?;
        drop(held);
        placing.abort();
        self.network.heal();
        self.orders.restart().await
    }
}

/// Places an order; whether it was taken.
async fn place(url: &str, path: &str, key: &str) -> bool {
    let order = json!({ "key": key, "customer": 1, "product": 1, "quantity": 1 });
    let order = if path == OURS { json!({ "place": order }) } else { order };
    let http = Client::builder().no_proxy().timeout(SOON).build();
    let Ok(http) = http else { return false };
    let answer = http.post(format!("{url}{path}")).json(&order).send().await;
    answer.is_ok_and(|it| it.status().is_success())
}
