//! How much load can a server take? We measure with a closed loop (a fixed number of clients, each waits for its
//! answer) and with an open loop (requests arrive at a fixed rate, whether or not earlier ones are answered).
//!
//! A closed loop sends nothing while the server stalls, and so misses the stall: *coordinated omission*
//! (Gil Tene). The open loop counts each latency from the moment at which the request was due.

pub mod http;
mod outcome;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::future::BoxFuture;
use tokio::{
    sync::{
        Semaphore,
        mpsc::{UnboundedSender, unbounded_channel},
    },
    task::{JoinSet, spawn_blocking},
};

pub use outcome::{Outcome, median};

/// When a closed loop ends.
#[derive(Clone, Copy, Debug)]
pub enum Stop {
    /// After this time.
    After(Duration),
    /// After this many requests of all clients together.
    Count(u64),
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
            // Each client counts for itself, so that the clients share almost nothing while they are measured.
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

/// A request of the open loop.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// Its number, from 0.
    pub number: u64,
    /// When it was to be sent. Its latency counts from here.
    pub due: Instant,
}

/// Sends requests at a steady rate, whether or not the earlier ones are answered. While `max_in_flight` are in flight,
/// the next one has to wait, but its latency counts from when it was due.
pub async fn open<F, R>(
    rate_per_second: f64,
    time: Duration,
    max_in_flight: usize,
    request: F,
) -> anyhow::Result<Outcome>
where
    F: Fn(Arrival) -> R,
    R: Future<Output = anyhow::Result<()>> + Send + 'static,
{
    // Without a bound, because the clock must not wait. It holds at most the requests of this run.
    let (ticks, mut arrivals) = unbounded_channel();
    let begun = Instant::now();
    let clock = spawn_blocking(move || tick(begun, rate_per_second, time, &ticks));
    let places = Arc::new(Semaphore::new(max_in_flight));
    let mut work = JoinSet::new();
    let mut outcome = Outcome::new()?;
    while let Some(arrival) = arrivals.recv().await {
        let (places, answer) = (places.clone(), request(arrival));
        work.spawn(async move {
            let lag = arrival.due.elapsed();
            let place = places.acquire().await;
            let result = answer.await;
            drop(place);
            (lag, arrival.due.elapsed(), result)
        });
        while let Some(done) = work.try_join_next() {
            let (lag, latency, result) = done.context("a request panicked")?;
            outcome.record_lag(lag);
            outcome.record(latency, result);
        }
    }
    while let Some(done) = work.join_next().await {
        let (lag, latency, result) = done.context("a request panicked")?;
        outcome.record_lag(lag);
        outcome.record(latency, result);
    }
    clock.await?;
    outcome.seconds = begun.elapsed().as_secs_f64();
    Ok(outcome)
}

/// Sends a tick when a request is due. It runs on a thread of its own: tokio's timer knows only whole milliseconds, so
/// each request would be up to 1 ms late, many times what a quick server takes. A thread sleeps to within 0.1 ms.
fn tick(begun: Instant, rate_per_second: f64, time: Duration, ticks: &UnboundedSender<Arrival>) {
    for number in 0.. {
        let after = Duration::from_secs_f64(number as f64 / rate_per_second);
        let due = begun + after;
        if after >= time {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Fails if the run was stopped.
        if ticks.send(Arrival { number, due }).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::{sync::Mutex, time::sleep};

    use super::*;

    const QUICK: Duration = Duration::from_millis(1);
    const STALL: Duration = Duration::from_millis(400);

    /// A server that answers at once, except that it stalls once and makes every client wait.
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
        // The closed loop says that one request of a thousand was slow. In truth 40 % of those that were due were slow.
        assert!(closed.percentile(99.0) < 100.0, "{}", closed.percentile(99.0));
        assert!(open.percentile(90.0) > 200.0, "{}", open.percentile(90.0));
    }

    #[tokio::test]
    async fn the_open_loop_does_not_count_the_rounding_of_a_timer_as_latency() {
        // Not a multiple of a millisecond, so that a timer of whole milliseconds is late by all amounts.
        let outcome = open(333.0, Duration::from_secs(1), 100, |_| async { Ok(()) }).await.unwrap();
        assert_eq!(outcome.ok, 333);
        assert!(outcome.percentile(50.0) < 0.4, "{} ms", outcome.percentile(50.0));
    }

    #[tokio::test]
    async fn how_late_the_open_loop_itself_was_is_told_apart_from_how_slow_the_server_was() {
        let slow = |_| async {
            sleep(Duration::from_millis(30)).await;
            Ok(())
        };
        let outcome = open(100.0, Duration::from_millis(500), 1, slow).await.unwrap();
        assert!(outcome.percentile(99.0) > 500.0, "{}", outcome.percentile(99.0));
        assert!(outcome.schedule_lag(50.0) < 10.0, "{}", outcome.schedule_lag(50.0));
        assert!(outcome.schedule_lag(50.0) > 0.0, "it was not measured");
    }

    #[tokio::test]
    async fn an_arrival_that_has_to_wait_for_a_place_has_its_clock_running() {
        let slow = |_| async {
            sleep(Duration::from_millis(50)).await;
            Ok(())
        };
        let outcome = open(200.0, Duration::from_millis(500), 1, slow).await.unwrap();
        assert_eq!(outcome.ok, 100);
        // Twenty requests a second are served and two hundred arrive: the last one waits for all before it.
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
