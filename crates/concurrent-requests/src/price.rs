//! Where is a price computed? Not on a thread that answers requests.

use std::sync::Arc;

use clap::ValueEnum;
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::error::{Error, Result};
use crate::order::Product;

/// Where the rules are applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Threads {
    /// On the thread that answers requests, as any other line of a handler
    Inline,
    /// On tokio's threads for blocking work, of which there may be 512
    Blocking,
    /// On as many threads as the machine has cores to spare
    Pool,
}

/// The rule engine of the shop's prices.
#[derive(Clone, Debug)]
pub struct Engine {
    threads: Threads,
    rules: u32,
    cores: Arc<Semaphore>,
}

impl Engine {
    /// With so many rules for each price.
    pub fn new(threads: Threads, rules: u32) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        // One core stays free for the threads that answer requests.
        let cores = Arc::new(Semaphore::new((cores - 1).max(1)));
        Self { threads, rules, cores }
    }

    // ANCHOR: price
    /// The price after all rules. A handler that computes for some milliseconds holds its thread, and a runtime has as many
    /// threads as there are cores: with as many such handlers, every request waits.
    pub async fn price(&self, product: &Product) -> Result<i64> {
        let (cents, id, rules) = (product.cents, product.id, self.rules);
        match self.threads {
            Threads::Inline => Ok(quote(cents, id, rules)),
            Threads::Blocking => on_another_thread(move || quote(cents, id, rules)).await,
            Threads::Pool => {
                // Who waits here waits in a queue, and costs no thread.
                let core = Arc::clone(&self.cores).acquire_owned().await;
                on_another_thread(move || {
                    // The core is taken until the work is done, also if nobody waits for it any more.
                    let _core = core;
                    quote(cents, id, rules)
                })
                .await
            }
        }
    }
    // ANCHOR_END: price
}

/// The async thread is free until the other one is done.
async fn on_another_thread(work: impl FnOnce() -> i64 + Send + 'static) -> Result<i64> {
    spawn_blocking(work).await.map_err(|error| Error::Internal(Arc::new(error)))
}

/// Applies the rules, one after another, for the best discount of at most 30 percent. They are made up, and their cost is
/// that of real ones: only the CPU, and nothing to wait for.
pub fn quote(cents: i64, id: i64, rules: u32) -> i64 {
    let mut best = 0;
    let mut hash = id.unsigned_abs() | 1;
    for rule in 0..rules {
        hash = (hash ^ u64::from(rule)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        hash ^= hash >> 29;
        if hash.is_multiple_of(1_000) {
            best = best.max(hash / 1_000 % 31);
        }
    }
    cents - cents * i64::try_from(best).unwrap_or(0) / 100
}

#[cfg(test)]
mod tests {
    use std::{pin::pin, time::Duration};

    use futures_util::FutureExt;
    use tokio::time::timeout;

    use super::*;

    fn tea() -> Product {
        Product { id: 7, name: "tea".to_owned(), cents: 1_000, stock: 1 }
    }

    #[test]
    fn a_price_is_at_most_thirty_percent_off_and_always_the_same() {
        assert_eq!(quote(1_000, 7, 0), 1_000);
        for id in 1..50 {
            let price = quote(1_000, id, 20_000);
            assert!((700..=1_000).contains(&price), "{id}: {price}");
            assert_eq!(price, quote(1_000, id, 20_000));
        }
    }

    #[tokio::test]
    async fn a_price_is_the_same_wherever_it_is_computed() {
        let product = tea();
        for threads in Threads::value_variants() {
            let engine = Engine::new(*threads, 10_000);
            assert_eq!(
                engine.price(&product).await.unwrap(),
                quote(1_000, 7, 10_000),
                "{threads:?}"
            );
        }
    }

    #[tokio::test]
    async fn a_price_waits_for_a_core() {
        let (engine, product) = (Engine::new(Threads::Pool, 1), tea());
        let all = u32::try_from(engine.cores.available_permits()).unwrap();
        let taken = engine.cores.acquire_many(all).await.unwrap();
        let mut waits = pin!(engine.price(&product));
        assert!(timeout(Duration::from_millis(50), waits.as_mut()).await.is_err());
        drop(taken);
        assert_eq!(waits.await.unwrap(), quote(1_000, 7, 1));
    }

    #[tokio::test]
    async fn a_core_stays_taken_also_if_nobody_waits_for_the_price_any_more() {
        // It takes some tenths of a second in a debug build.
        let engine = Engine::new(Threads::Pool, 20_000_000);
        let all = engine.cores.available_permits();
        assert!(engine.price(&tea()).now_or_never().is_none());
        assert_eq!(engine.cores.available_permits(), all - 1);
    }
}
