//! What does a run stand on? A database, keys and queues of its own, processes that share them, and clients of
//! the service. The tests stand on the same.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use lab::{
    Lab,
    child::{Child, ChildBuilder},
    database::Database,
    keys::Keys,
    patience::patiently,
    queues::Queues,
};
use lapin::types::FieldTable;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    time::{Instant, sleep, timeout},
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use crate::{MIGRATIONS, backoff::Backoff, experiments::fcm::FakeFcm, topology::Topology};

/// The name of this answer.
const NAME: &str = "notification-worker";

/// For anything that should come soon. A machine that is busy with other tests is slow.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Servers' parts of one's own, and the options that the processes on them have in common.
#[derive(Debug)]
pub struct Stand {
    /// The database.
    pub database: Database,
    /// The part of Redis.
    pub keys: Keys,
    /// The part of RabbitMQ.
    pub queues: Queues,
    /// What is declared there.
    pub topology: Topology,
    backoff: Backoff,
}

impl Stand {
    /// For an experiment.
    pub async fn of(
        lab: &Lab,
        shards: u16,
        backoff_ms: u64,
        attempts: u16,
    ) -> anyhow::Result<Self> {
        let (database, keys, queues) = tokio::try_join!(lab.database(), lab.keys(), lab.queues())?;
        Self::on(database, keys, queues, shards, backoff_ms, attempts)
    }

    /// For a test.
    pub async fn fresh(shards: u16, backoff_ms: u64, attempts: u16) -> anyhow::Result<Self> {
        let (database, keys, queues) = tokio::try_join!(
            Database::fresh(NAME, &MIGRATIONS),
            Keys::fresh(NAME),
            Queues::fresh(NAME),
        )?;
        Self::on(database, keys, queues, shards, backoff_ms, attempts)
    }

    /// On parts that are there.
    pub fn on(
        database: Database,
        keys: Keys,
        mut queues: Queues,
        shards: u16,
        backoff_ms: u64,
        attempts: u16,
    ) -> anyhow::Result<Self> {
        let topology =
            Topology { prefix: queues.prefix().to_owned(), shards, max_queue: 1_000_000 };
        let backoff = Backoff { first: Duration::from_millis(backoff_ms), attempts };
        let (names, exchanges) = topology.names(backoff.rungs());
        queues.expect(names, exchanges)?;
        Ok(Self { database, keys, queues, topology, backoff })
    }

    /// Prepares a process on these parts.
    pub fn serve(&self, options: &[&str]) -> ChildBuilder {
        let first = self.backoff.first.as_millis().to_string();
        Child::serve(NAME)
            .database(&self.database)
            .env("REDIS_URL", self.keys.url())
            .env("AMQP_URL", self.queues.url())
            .args(&["--queue-prefix", self.queues.prefix(), "--key-prefix", self.keys.prefix()])
            .args(&["--shard-count", &self.topology.shards.to_string(), "--backoff-ms", &first])
            .args(&["--attempts", &self.backoff.attempts.to_string()])
            .args(options)
    }

    /// The options of a worker that pushes by this server.
    pub fn worker(&self, fcm: &FakeFcm, options: &[&str]) -> ChildBuilder {
        let credentials = fcm.credentials.path().to_string_lossy().into_owned();
        self.serve(&[
            "--role",
            "worker",
            "--fcm-credentials",
            &credentials,
            "--fcm-url",
            &fcm.url(),
        ])
        .args(options)
    }

    /// How many messages a queue holds that are ready.
    pub async fn ready(&self, queue: &str) -> anyhow::Result<u32> {
        let connection = self.queues.connection().await?;
        let channel = connection.create_channel().await?;
        let options = lapin::options::QueueDeclareOptions { passive: true, ..Default::default() };
        let queue = channel.queue_declare(queue.into(), options, FieldTable::default()).await?;
        let count = queue.message_count();
        connection.close(200, "goodbye".into()).await?;
        Ok(count)
    }

    /// Takes a message from the dead-letter queue, as soon as there is one: its payload and its reasons.
    pub async fn buried(&self) -> anyhow::Result<(Vec<u8>, String)> {
        let connection = self.queues.connection().await?;
        let channel = connection.create_channel().await?;
        let options = lapin::options::BasicGetOptions { no_ack: true };
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = channel.basic_get(self.topology.dead().into(), options).await? {
                let headers = message.properties.headers().clone().unwrap_or_default();
                let reasons = headers.inner().get("x-reasons").and_then(|it| it.as_long_string());
                let reasons = reasons.map(ToString::to_string).unwrap_or_default();
                let payload = message.data.clone();
                connection.close(200, "goodbye".into()).await?;
                return Ok((payload, reasons));
            }
            ensure!(Instant::now() < deadline, "nothing was buried");
            sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A client of the calls.
#[derive(Clone, Debug)]
pub struct Api {
    /// The client.
    pub http: reqwest::Client,
    /// Where it calls, without a slash at the end.
    pub url: String,
}

impl Api {
    /// Speaks to this child.
    pub fn of(child: &Child) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(256)
            .build()?;
        Ok(Self { http, url: child.url().to_owned() })
    }

    /// Any POST of JSON.
    pub async fn post(&self, path: &str, body: &Value) -> reqwest::Result<reqwest::Response> {
        self.http.post(format!("{}/{path}", self.url)).json(body).send().await
    }

    /// Notifies, and tells what came.
    pub async fn try_notify(
        &self,
        job: &str,
        user: &str,
        channel: &str,
    ) -> reqwest::Result<reqwest::Response> {
        self.post("notifications", &notification(job, user, channel)).await
    }

    /// Notifies, and must succeed; tries again when it is told to.
    pub async fn notify(&self, job: &str, user: &str, channel: &str) -> anyhow::Result<()> {
        self.accepted(&notification(job, user, channel)).await
    }

    /// Posts a notification, which must be accepted; tries again when it is told to.
    pub async fn accepted(&self, body: &Value) -> anyhow::Result<()> {
        let (response, _) = patiently(|| self.post("notifications", body)).await?;
        // 200 where an answer with 503 was too careful.
        let status = response.status();
        ensure!(
            status.is_success(),
            "{body} was answered with {status}: {}",
            response.text().await?
        );
        Ok(())
    }

    /// How many sockets the server says are open, as soon as it says so many, or what it says at last: one that
    /// was just opened or closed is not counted at once.
    pub async fn sockets(&self, expected: u64) -> anyhow::Result<u64> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let ready = self.http.get(format!("{}/readyz", self.url)).send().await?;
            let is_ready = ready.status().is_success();
            let ready: Value = ready.json().await?;
            let count = ready["sockets"].as_u64();
            match count {
                Some(count) if count == expected || Instant::now() > deadline => return Ok(count),
                None if Instant::now() > deadline => anyhow::bail!("ready: {is_ready}, {ready}"),
                _ => sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Where a job stands.
    pub async fn progress(&self, job: &str) -> anyhow::Result<Value> {
        let url = format!("{}/notifications/{job}", self.url);
        Ok(self.http.get(url).send().await?.error_for_status()?.json().await?)
    }

    /// Waits until a job has this status, and returns where it stands.
    pub async fn until(&self, job: &str, status: &str) -> anyhow::Result<Value> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let progress = self.progress(job).await?;
            if progress["status"] == status {
                return Ok(progress);
            }
            ensure!(Instant::now() < deadline, "{job} is not {status}: {progress}");
            sleep(Duration::from_millis(20)).await;
        }
    }

    /// Adds a device.
    pub async fn device(&self, user: &str, token: &str) -> anyhow::Result<()> {
        let url = format!("{}/users/{user}/devices/{token}", self.url);
        let status = self.http.put(url).send().await?.status();
        ensure!(status == 204, "{status}");
        Ok(())
    }

    /// A ticket for a stream.
    pub async fn ticket(&self, user: &str) -> anyhow::Result<String> {
        let path = format!("users/{user}/stream-tickets");
        let nothing = json!({});
        let (response, _) = patiently(|| self.post(&path, &nothing)).await?;
        ensure!(response.status() == 201, "{}", response.status());
        let body: Value = response.json().await?;
        Ok(body["ticket"].as_str().context("no ticket")?.to_owned())
    }

    /// Opens a stream after this number.
    pub async fn stream(&self, user: &str, after: i64) -> anyhow::Result<Stream> {
        let ticket = self.ticket(user).await?;
        self.stream_with(user, &format!("ticket={ticket}&after={after}")).await
    }

    /// Opens a stream with this query.
    pub async fn stream_with(&self, user: &str, query: &str) -> anyhow::Result<Stream> {
        let host = self.url.trim_start_matches("http://");
        let tcp = TcpStream::connect(host).await?;
        tcp.set_nodelay(true)?;
        let url = format!("ws://{host}/users/{user}/stream?{query}");
        let opened = timeout(PATIENCE, tokio_tungstenite::client_async(url, tcp)).await?;
        Ok(Stream { socket: opened?.0 })
    }
}

fn notification(job: &str, user: &str, channel: &str) -> Value {
    json!({
        "job_id": job,
        "user_id": user,
        "channel": channel,
        "title": "A title",
        "body": format!("The body of {job}"),
    })
}

/// What a stream's frame holds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Frame {
    /// Rises per user.
    pub seq: i64,
    /// The job.
    pub job_id: String,
    /// The headline.
    pub title: String,
    /// The text.
    pub body: String,
}

/// An open stream.
#[derive(Debug)]
pub struct Stream {
    /// The socket itself.
    pub socket: WebSocketStream<TcpStream>,
}

impl Stream {
    /// The next frame; nothing when the server has closed the stream.
    pub async fn next(&mut self) -> anyhow::Result<Option<Frame>> {
        loop {
            match self.socket.next().await {
                Some(Ok(Message::Text(text))) => return Ok(Some(serde_json::from_str(&text)?)),
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return Ok(None),
                Some(Ok(other)) => anyhow::bail!("a frame that is no text: {other:?}"),
            }
        }
    }

    /// The next frame, which must come soon.
    pub async fn soon(&mut self) -> anyhow::Result<Frame> {
        let frame = timeout(PATIENCE, self.next()).await.context("no frame came")??;
        frame.context("the stream was closed")
    }

    /// Says goodbye.
    pub async fn close(mut self) {
        let _ = self.socket.close(None).await;
    }
}

/// Everything that one user's client has seen. It comes back whenever its stream ends, as a good client does.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every frame, in the order in which they came.
    pub frames: Vec<Frame>,
    /// How often the stream was opened.
    pub opened: u64,
}

impl Seen {
    /// Adds what comes until there are so many different jobs, or the deadline is over.
    pub async fn watch(&mut self, api: &Api, user: &str, jobs: usize, deadline: Instant) {
        let mut distinct: HashSet<_> =
            self.frames.iter().map(|frame| frame.job_id.clone()).collect();
        while distinct.len() < jobs && Instant::now() < deadline {
            let after = self.frames.last().map_or(0, |frame| frame.seq);
            let Ok(mut stream) = api.stream(user, after).await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            self.opened += 1;
            while distinct.len() < jobs {
                match tokio::time::timeout_at(deadline, stream.next()).await {
                    Ok(Ok(Some(frame))) => {
                        distinct.insert(frame.job_id.clone());
                        self.frames.push(frame);
                    }
                    _ => break,
                }
            }
            stream.close().await;
        }
    }

    /// How many jobs were seen.
    pub fn distinct(&self) -> usize {
        self.times().len()
    }

    /// How often each job was seen.
    pub fn times(&self) -> HashMap<&str, usize> {
        let mut times = HashMap::new();
        for frame in &self.frames {
            *times.entry(frame.job_id.as_str()).or_default() += 1;
        }
        times
    }
}
