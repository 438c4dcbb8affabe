//! What if somebody deletes what we declared?

use anyhow::ensure;
use conform::http::problem;
use lab::harness::{Outcome, eventually};
use lapin::{
    BasicProperties, Channel,
    options::{BasicPublishOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::FieldTable,
};
use notification_worker::{cases::client::Client, experiments::fixture::Fixture, worker::lane_of};

use crate::{start, user_of};

lab::tests![
    a_queue_that_was_deleted_is_declared_again,
    a_dead_letter_queue_that_was_deleted_blocks_no_lane,
    a_service_that_cannot_declare_its_queues_is_not_ready,
    the_dead_letter_queue_forgets,
];

async fn a_queue_that_was_deleted_is_declared_again() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    client.notify("before", "ann").await?;
    client.until("before", "delivered").await?;
    let (_open, channel) = channel(&fixture).await?;
    for shard in 0..2 {
        delete(&channel, &fixture.topology.queue(shard)).await?;
    }
    eventually("notifications are accepted again", async || {
        let answer = client.try_notify("after", "ann", "websocket").await?;
        Ok(answer.status().is_success().then_some(()))
    })
    .await?;
    client.until("after", "delivered").await?;
    Ok(())
}

async fn a_dead_letter_queue_that_was_deleted_blocks_no_lane() -> Outcome {
    let (fixture, _child, client) = start(&[]).await?;
    client.notify("before", "ann").await?;
    client.until("before", "delivered").await?;
    let (_open, channel) = channel(&fixture).await?;
    delete(&channel, &fixture.topology.dead()).await?;
    let garbage = async || {
        for shard in 0..2 {
            let (options, properties) =
                (BasicPublishOptions::default(), BasicProperties::default());
            let queue = fixture.topology.queue(shard).into();
            channel.basic_publish("".into(), queue, options, b"garbage", properties).await?;
        }
        anyhow::Ok(())
    };
    garbage().await?;
    for shard in 0..2 {
        // Behind the garbage, in its lane: whoever has another one would not notice that this one is blocked.
        let same_lane = |message: &_| {
            serde_json::to_vec(message).is_ok_and(|it| lane_of(&it) == lane_of(b"garbage"))
        };
        let (job, user) = (format!("after-{shard}"), user_of(&fixture, shard, same_lane)?);
        client.notify(&job, &user).await?;
        client.until(&job, "delivered").await?;
    }
    readyz_says(&client, 200, "whoever asks whether it is ready has it declared again").await?;
    garbage().await?;
    for _ in 0..2 {
        ensure!(fixture.buried().await? == b"garbage");
    }
    Ok(())
}

/// Waits until `GET /readyz` gets this status.
async fn readyz_says(client: &Client, status: u16, what: &str) -> Outcome {
    eventually(what, async || {
        Ok((client.target.get("readyz").await?.status() == status).then_some(()))
    })
    .await
}

async fn a_service_that_cannot_declare_its_queues_is_not_ready() -> Outcome {
    let (fixture, _child, client) = start(&["--role", "api"]).await?;
    readyz_says(&client, 200, "it is ready").await?;
    let (_open, channel) = channel(&fixture).await?;
    let queue = fixture.topology.queue(0);
    delete(&channel, &queue).await?;
    // It is another kind of queue now, and publishing to it would succeed.
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await?;
    readyz_says(&client, 503, "it is not ready").await?;
    problem(client.try_notify("one", "ann", "websocket").await?, 503).await?;
    ensure!(client.target.get("healthz").await?.status() == 200);
    delete(&channel, &queue).await?;
    readyz_says(&client, 200, "it is ready again").await
}

async fn the_dead_letter_queue_forgets() -> Outcome {
    let (fixture, _child, _client) = start(&["--role", "api"]).await?;
    let (_open, channel) = channel(&fixture).await?;
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), lapin::types::AMQPValue::LongString("quorum".into()));
    let locator = lapin::types::AMQPValue::LongString("balanced".into());
    arguments.insert("x-queue-leader-locator".into(), locator);
    arguments.insert("x-message-ttl".into(), 604_800_000_i64.into());
    arguments.insert("x-max-length".into(), 100_000_i64.into());
    // RabbitMQ refuses to declare it again with other arguments than it has.
    let durable = QueueDeclareOptions { durable: true, ..Default::default() };
    channel.queue_declare(fixture.topology.dead().into(), durable, arguments).await?;
    Ok(())
}

async fn channel(fixture: &Fixture) -> anyhow::Result<(lapin::Connection, Channel)> {
    let connection = fixture.queues.connection().await?;
    let channel = connection.create_channel().await?;
    Ok((connection, channel))
}

async fn delete(channel: &Channel, queue: &str) -> Outcome {
    channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await?;
    Ok(())
}
