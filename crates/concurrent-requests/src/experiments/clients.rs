//! Who asks? Clients that keep their connections, have patience for so long, and hang up when it is over.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::try_join_all;
use lab::load::{
    self,
    http::{Connection, Pool},
    median,
};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use tokio::time::{sleep, timeout};

/// Clients of one server. Each request takes a free connection, or opens one.
#[derive(Debug)]
pub struct Clients {
    pool: Pool,
}

impl Clients {
    /// Of the server at `127.0.0.1:PORT`.
    pub fn of(host: &str) -> Self {
        Self { pool: Pool::of(host) }
    }

    /// Sends a GET, reads its answer to the end and returns its status.
    pub async fn get(&self, path: &str) -> anyhow::Result<u16> {
        self.pool.get(path).await
    }

    /// An order under this key.
    pub async fn order(&self, product: i64, key: &str) -> anyhow::Result<u16> {
        let order = format!(r#"{{"product":{product},"quantity":1}}"#);
        let key = [("idempotency-key", key.to_owned())];
        self.pool.send(|connection| connection.post_with("/orders", &key, &order)).await
    }

    /// A GET by a client who hangs up after so long, and tells the service so if `told`. Nothing if no answer came in time.
    pub async fn get_in_time(
        &self,
        path: &str,
        patience: Duration,
        told: bool,
    ) -> anyhow::Result<Option<u16>> {
        let deadline = (OffsetDateTime::now_utc() + patience).format(&Rfc3339)?;
        let request = |connection: &Connection| {
            let mut request = connection.get(path);
            if told {
                // Before the empty line that ends the head.
                request.truncate(request.len() - 2);
                request.extend(format!("x-request-deadline: {deadline}\r\n\r\n").into_bytes());
            }
            request
        };
        // The connection is dropped with the request, which closes it.
        timeout(patience, self.pool.send(request)).await.ok().transpose()
    }

    /// The same, which must have this status.
    pub async fn must_get(&self, path: &str) -> anyhow::Result<()> {
        let status = self.get(path).await?;
        ensure!(status == 200, "{path}: {status}");
        Ok(())
    }
}

/// What became of one request of a load.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its number, from 0.
    pub number: u64,
    /// From the moment at which it was due, in milliseconds.
    pub took: f64,
    /// Whether its client got what it wanted.
    pub good: bool,
}

/// Sends requests at a steady rate, whether or not the earlier ones are answered; what became of each, in their order.
/// A request that fails is one that its client is not content with.
pub async fn at_rate<R>(
    rate: f64,
    time: Duration,
    request: impl Fn(u64) -> R,
) -> anyhow::Result<Vec<Seen>>
where
    R: Future<Output = anyhow::Result<bool>> + Send + 'static,
{
    let all = Arc::new(Mutex::new(Vec::new()));
    let sent = load::open(rate, time, 20_000, |arrival| {
        let (all, answer) = (Arc::clone(&all), request(arrival.number));
        async move {
            let good = answer.await.unwrap_or(false);
            let took = arrival.due.elapsed().as_secs_f64() * 1e3;
            let seen = Seen { number: arrival.number, took, good };
            all.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
            Ok(())
        }
    });
    sent.await?;
    let mut all = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_key(|it| it.number);
    Ok(all)
}

/// How many got what they wanted, of all.
pub fn share(seen: &[Seen]) -> f64 {
    seen.iter().filter(|it| it.good).count() as f64 / seen.len().max(1) as f64
}

/// The latencies of those that got what they wanted at this percentage, in milliseconds.
pub fn percentile(seen: &[Seen], percentage: usize) -> f64 {
    let mut good: Vec<_> = seen.iter().filter(|it| it.good).map(|it| it.took).collect();
    good.sort_by(f64::total_cmp);
    good.get(good.len().saturating_sub(1) * percentage / 100).copied().unwrap_or(f64::NAN)
}

/// The number of the first request from which on 18 of 20 were good.
pub fn recovered(seen: &[Seen]) -> Option<f64> {
    let good = |some: &[Seen]| some.iter().filter(|it| it.good).count() >= 18;
    seen.windows(20).position(good).map(|number| number as f64)
}

/// Requests a second for a route that does nothing.
const TRIVIAL: f64 = 100.0;
/// They begin so long before the prices.
const BEFORE: Duration = Duration::from_millis(50);

/// What clients have seen while prices were computed.
#[derive(Debug)]
pub struct Stall {
    /// Those of `/healthz`, a hundred times a second.
    pub trivial: Vec<Seen>,
    /// The median wait of those that came while the first price was computed, in milliseconds. It does not tell of a single
    /// moment at which the machine did something else.
    pub wait: f64,
    /// How long the first price took.
    pub price: f64,
    /// And all of them.
    pub prices: f64,
}

/// Asks for all prices at once, while others ask for a route that does nothing.
pub async fn stall(
    clients: &Arc<Clients>,
    prices: &[String],
    seconds: f64,
) -> anyhow::Result<Stall> {
    let trivial = at_rate(TRIVIAL, Duration::from_secs_f64(seconds), |_| {
        let clients = Arc::clone(clients);
        async move { Ok(clients.get("/healthz").await? == 200) }
    });
    let prices = async {
        sleep(BEFORE).await;
        let begun = Instant::now();
        let ask = |path| async move {
            clients.must_get(path).await.map(|()| begun.elapsed().as_secs_f64() * 1e3)
        };
        try_join_all(prices.iter().map(|path| ask(path))).await
    };
    let (trivial, mut prices) = tokio::try_join!(trivial, prices)?;
    prices.sort_by(f64::total_cmp);
    let (first, last) = prices.first().zip(prices.last()).context("no price")?;
    let price = *first;
    let due = |it: &Seen| it.number as f64 * 1e3 / TRIVIAL - BEFORE.as_secs_f64() * 1e3;
    let meanwhile = trivial.iter().filter(|it| (0.0..price).contains(&due(it)));
    let wait = median(meanwhile.map(|it| it.took).collect());
    Ok(Stall { trivial, wait, price, prices: *last })
}
