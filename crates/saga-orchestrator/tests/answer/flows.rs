//! Does an order end alike when it finds its way without an orchestrator, or in one transaction?

use std::time::Duration;

use anyhow::{Context, ensure};
use conform::{http::problem, target::within};
use futures_util::StreamExt;
use lab::{
    Service,
    child::{Child, ChildBuilder},
    database::Database,
    fault::{Fault, Proxy, Side},
    harness::{Outcome, eventually},
    stack,
};
use lapin::{
    BasicProperties, Channel,
    options::{BasicConsumeOptions, BasicPublishOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use saga_orchestrator::{
    cases::client::{Client, changed, order},
    experiments::fixture::{self, Fixture},
};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};

use crate::{count, place_unconfirmed, start};

lab::tests![
    the_choreographed_order_ends_in_the_same_ways,
    an_event_that_no_code_of_ours_wrote_is_kept_and_holds_nothing_up,
    while_a_database_is_away_no_event_goes_back_to_the_broker,
    a_broker_that_says_nothing_any_more_is_left_for_a_new_connection,
    a_database_that_is_read_only_for_a_while_costs_no_event,
    an_order_whose_commit_was_not_confirmed_does_not_wait_for_the_poll,
    an_event_survives_a_database_that_breaks_off_at_any_message,
    an_event_survives_a_broker_that_breaks_off_at_any_message,
    a_parcel_without_a_reservation_is_left_to_a_human,
    two_processes_send_each_event_once,
    events_that_are_too_old_to_come_again_are_forgotten,
    the_order_by_two_phase_commit_says_what_is_missing,
];

async fn the_choreographed_order_ends_in_the_same_ways() -> Outcome {
    let (_queues, prefix) = fixture::queues().await?;
    let flow = ["--flow", "choreography", "--queue-prefix", &prefix];
    let (_fixture, _child, client) = start(&flow).await?;
    client.put_stock("book", 4).await?;
    for (key, order, end, effects) in [
        ("good", order("book"), "confirmed", [1, 0, 1, 0]),
        (
            "declined",
            changed(order("book"), "payment_method", "pm_card_chargeDeclined"),
            "cancelled",
            [0, 0, 0, 0],
        ),
        ("nowhere", changed(order("book"), "address.country", "XX"), "cancelled", [1, 1, 0, 0]),
        (
            "no such",
            changed(order("book"), "items.0.sku", "no-such-sku"),
            "cancelled",
            [0, 0, 0, 0],
        ),
        ("also good", order("book"), "confirmed", [1, 0, 1, 0]),
        ("sold out", order("book"), "cancelled", [0, 0, 0, 0]),
    ] {
        let id = client.place_order(key, &order).await?;
        ensure!(client.place_order(key, &order).await? == id, "{key}");
        client.ends(id, end).await.context(key)?;
        client.had(id, effects).await.context(key)?;
    }
    client.has_stock("book", [0, 0, 4]).await?;
    let other = changed(order("book"), "amount_cents", 1);
    problem(client.post("orders", "good", &other).await?, 422).await?;
    Ok(())
}

async fn an_event_that_no_code_of_ours_wrote_is_kept_and_holds_nothing_up() -> Outcome {
    let (queues, prefix) = fixture::queues().await?;
    let flow = ["--flow", "choreography", "--queue-prefix", &prefix];
    let (_fixture, _child, client) = start(&flow).await?;
    client.put_stock("book", 4).await?;
    let id = client.place_order("before", &order("book")).await?;
    client.ends(id, "confirmed").await?;
    let channel = queues.connection().await?.create_channel().await?;
    let exchange = format!("{prefix}events");
    let (an_id, fewer_than_none) =
        ("00000000-0000-7000-8000-000000000005", changed(order("book"), "items.0.quantity", -1));
    let fewer_than_none = json!({
        "id": an_id, "kind": "order.placed", "order_id": an_id, "order": fewer_than_none,
    })
    .to_string();
    let last = fewer_than_none.as_bytes();
    for event in [&b"\xff\xfe"[..], b"", b"{}", b"<html>", br#"{"kind":"order.placed"}"#, last] {
        let publish = channel.basic_publish(
            exchange.as_str().into(),
            "order.placed".into(),
            BasicPublishOptions::default(),
            event,
            BasicProperties::default(),
        );
        publish.await?.await?;
    }
    let id = client.place_order("after", &order("book")).await?;
    client.ends(id, "confirmed").await?;
    eventually("all of them are in the dead-letter queue", async || {
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let dead = format!("{prefix}dead");
        let dead = channel.queue_declare(dead.as_str().into(), passive, FieldTable::default());
        Ok((dead.await?.message_count() == 6).then_some(()))
    })
    .await
}

/// A choreography that reaches its broker, and the databases of orders and shipping, through proxies.
struct Scene {
    client: Client,
    broker: Proxy,
    orders: Proxy,
    shipping: Proxy,
    _child: Child,
    fixture: Fixture,
    _queues: lab::queues::Queues,
}

impl Scene {
    /// With a poll that comes too late to hide anything.
    async fn start() -> anyhow::Result<Self> {
        let (queues, prefix) = fixture::queues().await?;
        let fixture = Fixture::fresh().await?;
        let amqp = stack::server(Service::RabbitMq).await?.url;
        let broker = Proxy::to_url(&amqp).await?;
        let [inventory, payment, url] = fixture.parts.databases().map(Database::url);
        let shipping = Proxy::to_url(url).await?;
        let orders = Proxy::to_url(fixture.orders.url()).await?;
        let choreography: ChildBuilder = fixture
            .serve_on([inventory, payment, &shipping.url(url)?])
            .env("DATABASE_URL", orders.url(fixture.orders.url())?)
            .args(&["--flow", "choreography", "--queue-prefix", &prefix])
            .args(&["--amqp-url", &broker.url(&amqp)?, "--poll-ms", "600000"]);
        let (child, client) = fixture::start(choreography).await?;
        client.put_stock("book", 1_000).await?;
        let id = client.place_order("first", &order("book")).await?;
        client.ends(id, "confirmed").await?;
        Ok(Self { client, broker, orders, shipping, _child: child, fixture, _queues: queues })
    }

    /// Places an order while shipping's database is away, and waits until it is charged.
    async fn charged(&self) -> anyhow::Result<uuid::Uuid> {
        self.shipping.set(Fault::Cut);
        let id = self.client.place_order("charged", &order("book")).await?;
        eventually("the order is charged", async || {
            let payments = self.client.json(&format!("payment/effects/{id}")).await?;
            Ok((payments["effects"] != json!([])).then_some(()))
        })
        .await?;
        Ok(id)
    }
}

/// RabbitMQ 4 drops an event that has come back twenty times. Here it does not come back at all.
async fn while_a_database_is_away_no_event_goes_back_to_the_broker() -> Outcome {
    let scene = Scene::start().await?;
    let before = scene.broker.connections();
    let id = scene.charged().await?;
    let said = scene.broker.messages();
    // How long the outage lasts.
    sleep(Duration::from_secs(3)).await;
    // Heartbeats, and the rest of the charge; a return at each try would be fifteen.
    let said = scene.broker.messages() - said;
    ensure!(said < 10, "{said} messages to the broker");
    let after = scene.broker.connections();
    ensure!(after == before, "{} new connections to the broker", after - before);
    scene.shipping.heal();
    scene.client.ends(id, "confirmed").await?;
    scene.client.had(id, [1, 0, 1, 0]).await
}

async fn a_broker_that_says_nothing_any_more_is_left_for_a_new_connection() -> Outcome {
    let scene = Scene::start().await?;
    let before = scene.broker.connections();
    scene.broker.set(Fault::BlackHole);
    let id = scene.client.place_order("silence", &order("book")).await?;
    within(Duration::from_mins(1), "it connects again", async || {
        Ok((scene.broker.connections() > before).then_some(()))
    })
    .await?;
    scene.broker.heal();
    scene.client.ends(id, "confirmed").await?;
    scene.client.had(id, [1, 0, 1, 0]).await
}

async fn a_database_that_is_read_only_for_a_while_costs_no_event() -> Outcome {
    let scene = Scene::start().await?;
    let url = scene.fixture.parts.shipping.url();
    let mut shipping = PgConnection::connect(url).await?;
    // 25006: the server was demoted. A sequence counts on although the statement fails.
    sqlx::raw_sql(
        r#"
        create sequence failures;
        create function fail() returns trigger language plpgsql as
            $$begin perform nextval('failures'); raise 'not now' using errcode = '25006'; end$$;
        create trigger fail before insert on inbox for each row execute function fail();
        "#,
    )
    .execute(&mut shipping)
    .await?;
    let id = scene.client.place_order("charged", &order("book")).await?;
    eventually("shipping cannot take the event", async || {
        let failed = count(url, "select count(*) from failures where is_called").await?;
        Ok((failed == 1).then_some(()))
    })
    .await?;
    sqlx::raw_sql("drop trigger fail on inbox").execute(&mut shipping).await?;
    shipping.close().await?;
    scene.client.ends(id, "confirmed").await?;
    scene.client.had(id, [1, 0, 1, 0]).await
}

async fn an_order_whose_commit_was_not_confirmed_does_not_wait_for_the_poll() -> Outcome {
    let scene = Scene::start().await?;
    let id = place_unconfirmed(&scene.client, &scene.fixture, &scene.orders).await?;
    scene.client.ends(id, "confirmed").await.map(drop)
}

async fn an_event_survives_a_database_that_breaks_off_at_any_message() -> Outcome {
    let scene = Scene::start().await?;
    breaks_off(&scene, &scene.shipping, 12).await
}

async fn an_event_survives_a_broker_that_breaks_off_at_any_message() -> Outcome {
    let scene = Scene::start().await?;
    breaks_off(&scene, &scene.broker, 16).await
}

/// The process lives on, and every order must end: nothing may wait for the next poll.
async fn breaks_off(scene: &Scene, server: &Proxy, messages: u64) -> Outcome {
    for message in 1..=messages {
        for side in [Side::Before, Side::After] {
            let key = format!("{side:?} message {message}");
            let caught = server.at_message(server.messages() + message, side);
            let wanted = order("book");
            let placing = scene.client.place_order(&key, &wanted);
            let (placed, held) = tokio::join!(placing, timeout(Duration::from_secs(2), caught));
            if let Ok(held) = held {
                let held = held?;
                server.set(Fault::Cut);
                held.gone().await;
                server.heal();
            }
            let id = placed?;
            scene.client.ends(id, "confirmed").await.context(key)?;
            scene.client.had(id, [1, 0, 1, 0]).await?;
        }
    }
    Ok(())
}

async fn a_parcel_without_a_reservation_is_left_to_a_human() -> Outcome {
    let scene = Scene::start().await?;
    let id = scene.charged().await?;
    let mut inventory = PgConnection::connect(scene.fixture.parts.inventory.url()).await?;
    sqlx::query("delete from calls where order_id = $1").bind(id).execute(&mut inventory).await?;
    inventory.close().await?;
    scene.shipping.heal();
    scene.client.ends(id, "stuck").await.map(drop)
}

async fn two_processes_send_each_event_once() -> Outcome {
    let (mut queues, prefix) = fixture::queues().await?;
    let fixture = Fixture::fresh().await?;
    let choreography = fixture.serve().args(&[
        "--flow",
        "choreography",
        "--queue-prefix",
        &prefix,
        "--poll-ms",
        "5",
    ]);
    let (_one, client) = fixture::start(choreography.clone()).await?;
    let _other = choreography.start().await?;
    client.put_stock("book", 1_000).await?;
    let id = client.place_order("first", &order("book")).await?;
    client.ends(id, "confirmed").await?;
    let spy = format!("{prefix}spy");
    queues.expect([spy.clone()], [])?;
    let channel = queues.connection().await?.create_channel().await?;
    listen_to_all(&channel, &spy, &format!("{prefix}events")).await?;
    for number in 0..20 {
        let id = client.place_order(&format!("{number}"), &order("book")).await?;
        client.ends(id, "confirmed").await?;
    }
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let mut events = channel
        .basic_consume(spy.as_str().into(), "".into(), options, FieldTable::default())
        .await?;
    let (mut ids, mut sent) = (std::collections::HashSet::new(), 0);
    // All of them come, however busy the machine is; then one that is sent twice would come too.
    let patience = |ids: usize| Duration::from_secs(if ids < 100 { 20 } else { 1 });
    while let Ok(Some(event)) = timeout(patience(ids.len()), events.next()).await {
        let event: Value = serde_json::from_slice(&event?.data)?;
        ids.insert(event["id"].to_string());
        sent += 1;
    }
    ensure!(ids.len() == 100, "five events for each order: {}", ids.len());
    // A relay that is held up for half a second is not waited for.
    ensure!(sent <= 110, "{sent} messages for 100 events");
    Ok(())
}

async fn listen_to_all(channel: &Channel, queue: &str, exchange: &str) -> Outcome {
    let (options, none) = (QueueDeclareOptions::default(), FieldTable::default);
    channel.queue_declare(queue.into(), options, none()).await?;
    let options = QueueBindOptions::default();
    Ok(channel.queue_bind(queue.into(), exchange.into(), "#".into(), options, none()).await?)
}

async fn events_that_are_too_old_to_come_again_are_forgotten() -> Outcome {
    let fixture = Fixture::fresh().await?;
    let mut payment = PgConnection::connect(fixture.parts.payment.url()).await?;
    sqlx::query(
        r#"
        insert into inbox (event_id, at)
        select gen_random_uuid(), now() - days * interval '1 day'
        from generate_series(1, 3000) as number, (values (1), (8)) as age (days)
        "#,
    )
    .execute(&mut payment)
    .await?;
    payment.close().await?;
    let (_queues, prefix) = fixture::queues().await?;
    let flow = ["--flow", "choreography", "--queue-prefix", &prefix];
    let _child = fixture.serve().args(&flow).start().await?;
    eventually("the old events are forgotten, and no others", async || {
        let kept = count(fixture.parts.payment.url(), "select count(*) from inbox").await?;
        ensure!(kept >= 3_000, "{kept} are left");
        Ok((kept == 3_000).then_some(()))
    })
    .await
}

/// The shared server may not allow prepared transactions, which is PostgreSQL's default: then it says so by a 500 or
/// a 503, and nothing is left behind. Where it does, the order is confirmed or cancelled at once.
async fn the_order_by_two_phase_commit_says_what_is_missing() -> Outcome {
    let (_fixture, _child, client) = start(&["--flow", "two-phase-commit"]).await?;
    client.put_stock("book", 2).await?;
    let nowhere = changed(order("book"), "address.country", "XX");
    let refused = client.post("orders", "declined", &nowhere).await?;
    ensure!(refused.status() == 202);
    ensure!(refused.json::<Value>().await?["status"] == "cancelled");
    let response = client.post("orders", "good", &order("book")).await?;
    if response.status() == 202 {
        ensure!(response.json::<Value>().await?["status"] == "confirmed");
    } else {
        problem(response, 500).await?;
        client.has_stock("book", [2, 0, 0]).await?;
    }
    Ok(())
}
