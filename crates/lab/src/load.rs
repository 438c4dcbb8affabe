//! How much can it take? Closed-loop load (a fixed number of clients, each waits for its answer) and
//! open-loop load (requests come when they come, as they do from the world).
//!
//! A closed loop stops asking while the server stalls, and so misses the stall: *coordinated omission*
//! (Gil Tene). The open loop counts each latency from the moment at which the request was due.

pub mod http;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::future::BoxFuture;
use hdrhistogram::Histogram;
use tokio::{sync::Semaphore, task::JoinSet, time::sleep_until};

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// After this time.
    After(Duration),
    /// After so many requests, of all workers together.
    Count(u64),
}

/// What a load has measured.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Requests that succeeded.
    pub ok: u64,
    /// Requests that failed.
    pub failed: u64,
    /// The first failure's words.
    pub first_error: Option<String>,
    /// How long it took.
    pub seconds: f64,
    /// Latencies of those that succeeded, in microseconds.
    latencies: Histogram<u64>,
}

impl Outcome {
    fn new() -> anyhow::Result<Self> {
        // From a microsecond to an hour, with three digits: finer than any of this is repeatable.
        let latencies = Histogram::new_with_bounds(1, 3_600_000_000, 3)?;
        Ok(Self { ok: 0, failed: 0, first_error: None, seconds: 0.0, latencies })
    }

    fn record(&mut self, latency: Duration, result: anyhow::Result<()>) {
        match result {
            Ok(()) => {
                self.ok += 1;
                let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
                self.latencies.saturating_record(micros);
            }
            Err(error) => {
                self.failed += 1;
                self.first_error.get_or_insert_with(|| format!("{error:#}"));
            }
        }
    }

    fn add(&mut self, other: Self) -> anyhow::Result<()> {
        self.ok += other.ok;
        self.failed += other.failed;
        self.first_error = self.first_error.take().or(other.first_error);
        Ok(self.latencies.add(other.latencies)?)
    }

    /// Requests that succeeded, per second.
    pub fn throughput(&self) -> f64 {
        self.ok as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// The latency in milliseconds below which this percentage of the requests stayed.
    pub fn percentile(&self, percentage: f64) -> f64 {
        self.latencies.value_at_percentile(percentage) as f64 / 1e3
    }

    /// Requests per second, median and 99th percentile in milliseconds, failures: cells of a table.
    pub fn cells(&self) -> Vec<String> {
        vec![
            format!("{:.0}", self.throughput()),
            format!("{:.3}", self.percentile(50.0)),
            format!("{:.3}", self.percentile(99.0)),
            self.failed.to_string(),
        ]
    }

    /// The head of [`cells`](Self::cells).
    pub const COLUMNS: [&str; 4] = ["requests/s", "p50 (ms)", "p99 (ms)", "failed"];
}

/// The value in the middle: what a measurement gives in most runs, whatever one bad run says. NaN if there is none.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How a client sends one request and waits for its answer.
pub type Request<C> = for<'a> fn(&'a mut C) -> BoxFuture<'a, anyhow::Result<()>>;

/// Lets each client send one request after another, without a pause.
pub async fn closed<C: Send + 'static>(
    clients: Vec<C>,
    stop: Stop,
    request: Request<C>,
) -> anyhow::Result<Outcome> {
    let begun = Instant::now();
    let left = Arc::new(AtomicU64::new(match stop {
        Stop::Count(count) => count,
        Stop::After(_) => u64::MAX,
    }));
    let end = match stop {
        Stop::After(time) => Some(begun + time),
        Stop::Count(_) => None,
    };
    let mut work = JoinSet::new();
    for mut client in clients {
        let left = left.clone();
        work.spawn(async move {
            // Each has numbers of its own: nothing is shared while it is measured.
            let mut outcome = Outcome::new()?;
            while end.is_none_or(|end| Instant::now() < end) && take_one(&left) {
                let sent = Instant::now();
                let result = request(&mut client).await;
                outcome.record(sent.elapsed(), result);
            }
            anyhow::Ok(outcome)
        });
    }
    let mut all = Outcome::new()?;
    while let Some(outcome) = work.join_next().await {
        all.add(outcome.context("a client panicked")??)?;
    }
    all.seconds = begun.elapsed().as_secs_f64();
    Ok(all)
}

fn take_one(left: &AtomicU64) -> bool {
    left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
}

/// Sends requests at a steady rate, whether or not the earlier ones are answered. When `max_in_flight`
/// are under way the next has to wait, but its clock runs from when it was due.
pub async fn open<F, R>(
    rate_per_second: f64,
    time: Duration,
    max_in_flight: usize,
    request: F,
) -> anyhow::Result<Outcome>
where
    F: Fn(u64) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    let begun = Instant::now();
    let places = Arc::new(Semaphore::new(max_in_flight));
    let mut work = JoinSet::new();
    let mut outcome = Outcome::new()?;
    for number in 0.. {
        let due = begun + Duration::from_secs_f64(number as f64 / rate_per_second);
        if due >= begun + time {
            break;
        }
        sleep_until(due.into()).await;
        let place = places.clone().acquire_owned().await?;
        let answer = request(number);
        work.spawn(async move {
            let result = answer.await;
            drop(place);
            (due.elapsed(), result)
        });
        while let Some(done) = work.try_join_next() {
            let (latency, result) = done.context("a request panicked")?;
            outcome.record(latency, result);
        }
    }
    while let Some(done) = work.join_next().await {
        let (latency, result) = done.context("a request panicked")?;
        outcome.record(latency, result);
    }
    outcome.seconds = begun.elapsed().as_secs_f64();
    Ok(outcome)
}

#[cfg(test)]
mod tests {
    use tokio::{sync::Mutex, time::sleep};

    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const STALL: Duration = Duration::from_millis(400);

    /// A server that answers at once, but one time stalls, and makes everybody wait.
    #[derive(Clone, Default)]
    struct Stalling {
        served: Arc<Mutex<u64>>,
    }

    impl Stalling {
        async fn serve(&self) -> anyhow::Result<()> {
            let mut served = self.served.lock().await;
            *served += 1;
            if *served == 50 {
                sleep(STALL).await;
            }
            Ok(())
        }
    }

    #[tokio::test]
    async fn the_open_loop_sees_a_stall_that_the_closed_loop_omits() {
        let server = Stalling::default();
        let closed = closed(vec![server], Stop::Count(1_000), |server| {
            Box::pin(async move {
                sleep(QUICK).await;
                server.serve().await
            })
        });
        let closed = closed.await.unwrap();
        let server = Stalling::default();
        let open = open(500.0, Duration::from_secs(1), 10_000, |_| {
            let server = server.clone();
            async move { server.serve().await }
        });
        let open = open.await.unwrap();
        assert_eq!((closed.ok, open.ok), (1_000, 500));
        // One of a thousand was slow, says the closed loop; of those that were due, four in ten were.
        assert!(closed.percentile(99.0) < 100.0, "{}", closed.percentile(99.0));
        assert!(open.percentile(90.0) > 200.0, "{}", open.percentile(90.0));
    }

    #[tokio::test]
    async fn an_arrival_that_has_to_wait_for_a_place_has_its_clock_running() {
        let slow = |_| async {
            sleep(Duration::from_millis(50)).await;
            Ok(())
        };
        let outcome = open(200.0, Duration::from_millis(500), 1, slow).await.unwrap();
        assert_eq!(outcome.ok, 100);
        // Twenty a second are served and two hundred come: the last waits for all before it.
        assert!(outcome.percentile(99.0) > 3_000.0, "{}", outcome.percentile(99.0));
    }

    #[tokio::test]
    async fn failures_are_counted_and_the_first_is_told() {
        let clients = vec![0_u64; 4];
        let outcome = closed(clients, Stop::Count(100), |n| {
            Box::pin(async move {
                *n += 1;
                anyhow::ensure!(*n % 2 == 0, "odd");
                Ok(())
            })
        });
        let outcome = outcome.await.unwrap();
        assert_eq!(outcome.ok + outcome.failed, 100);
        assert!(outcome.failed >= 48, "{}", outcome.failed);
        assert_eq!(outcome.first_error.as_deref(), Some("odd"));
        let throughput = outcome.ok as f64 / outcome.seconds;
        assert!((outcome.throughput() - throughput).abs() < 1e-6);
    }
}
