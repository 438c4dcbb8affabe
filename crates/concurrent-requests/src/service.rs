//! How are the parts put together? Each mechanism has one option.

use std::{sync::Arc, time::Duration};

use crate::admission::{Admission, Limits, Order};
use crate::bulkhead::Bulkhead;
use crate::jobs::{Jobs, Worker};
use crate::price::{Engine, Threads};
use crate::store::Store;

/// What `serve` understands. The threads that answer requests are the runtime's: `TOKIO_WORKER_THREADS` sets how many.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Connections to the database; `/readyz` has one more
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub connections: u32,
    /// Requests that may be at work at once. Those beyond the connections wait for one in order of arrival, whatever their
    /// priority and deadline
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub in_flight: u32,
    /// Let in as many as the database can do, judged by the latency, and `--in-flight` at the most
    #[arg(long)]
    pub adaptive: bool,
    /// Requests that may wait to begin; the next is answered with 503
    #[arg(long, default_value_t = 64)]
    pub waiting: usize,
    /// Which of those that wait begins first
    #[arg(long, value_enum, default_value = "fifo")]
    pub order: Order,
    /// The longest that a request may take, in milliseconds, whatever its client says
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(100..=600_000))]
    pub timeout_ms: u64,
    /// Go on with a request although its client has gone
    #[arg(long)]
    pub finish_abandoned: bool,
    /// Where prices are computed
    #[arg(long, value_enum, default_value = "pool")]
    pub price: Threads,
    /// Rules for each price: a million take some milliseconds
    #[arg(long, default_value_t = 1_000_000)]
    pub price_rules: u32,
    /// Let reads of one product that come at the same moment share a statement
    #[arg(long)]
    pub share_reads: bool,
    /// A handler that holds its thread for longer is named in the log, in milliseconds
    #[arg(long, default_value_t = 20)]
    pub watchdog_ms: u64,
    /// Connections that reports may have at once
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub report_connections: u32,
    /// Jobs that may wait; the next is answered with 503
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub jobs: u32,
}

/// What the handlers work with.
#[derive(Clone, Debug)]
pub struct Shop {
    /// Products and orders.
    pub store: Store,
    /// The same database, on one connection for `/readyz`, which must not wait behind requests.
    pub probe: Store,
    /// Their prices.
    pub engine: Engine,
    /// Who may begin.
    pub admission: Arc<Admission>,
    /// What reports may take.
    pub reports: Bulkhead,
    /// Reports that take long.
    pub jobs: Jobs,
    /// What it was started with.
    pub options: Arc<Options>,
}

impl Shop {
    /// Opens on this database. The worker has to be waited for in the end.
    pub fn open(database_url: &str, options: Options) -> anyhow::Result<(Self, Worker)> {
        // Leaves room for an answer within the time of the request.
        let timeout = Duration::from_millis(options.timeout_ms) * 4 / 5;
        let store = Store::new(database_url, options.connections, timeout, options.share_reads)?;
        let probe = Store::new(database_url, 1, timeout.min(Duration::from_secs(1)), false)?;
        let Options { in_flight, adaptive, waiting, order, .. } = options;
        let limits = Limits { in_flight: in_flight as usize, adaptive, waiting, order };
        let reports = Bulkhead::of(options.report_connections as usize);
        let (jobs, worker) = Jobs::start(options.jobs as usize, store.clone(), reports.clone());
        let shop = Self {
            store,
            probe,
            engine: Engine::new(options.price, options.price_rules),
            admission: Admission::new(limits),
            reports,
            jobs,
            options: Arc::new(options),
        };
        Ok((shop, worker))
    }

    /// For a whole request.
    pub fn timeout(&self) -> Duration {
        Duration::from_millis(self.options.timeout_ms)
    }
}
