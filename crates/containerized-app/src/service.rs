//! How do the parts become a service?

use std::{convert::Infallible, future::pending, sync::Arc, time::Duration};

use axum::Router;
use clap::Args;
use tokio::time::sleep;

use crate::{
    api::{self, Api},
    backend::Backend,
    init,
    jobs::Jobs,
    lifecycle::Lifecycle,
    limits::Limits,
    memory::{self, Budget},
};

/// What can be chosen at the start.
#[derive(Args, Clone, Debug)]
pub struct Options {
    /// A Redis without which this service is not ready: HOST:PORT
    #[arg(long, env = "BACKEND")]
    pub backend: Option<Backend>,
    /// How long it still takes connections after SIGTERM, in milliseconds. A balancer needs this time to hear of it
    #[arg(long, env = "LINGER_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub linger_ms: u64,
    /// How long its work before the first request takes, in milliseconds
    #[arg(long, env = "WARM_UP_MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60_000))]
    pub warm_up_ms: u64,
}

/// The service.
#[derive(Debug)]
pub struct Service {
    api: Arc<Api>,
    warm_up: Duration,
}

impl Service {
    /// Reads what the kernel allows, and serves nothing yet.
    pub fn new(options: &Options) -> Self {
        let limits = Limits::of_this_process();
        let api = Api {
            lifecycle: Lifecycle::new(Duration::from_millis(options.linger_ms)),
            backend: options.backend.clone(),
            jobs: Jobs::default(),
            limits,
            budget: Budget::new(limits.memory, memory::used()),
        };
        Self { api: Arc::new(api), warm_up: Duration::from_millis(options.warm_up_ms) }
    }

    /// Its calls.
    pub fn router(&self) -> Router {
        api::router(Arc::clone(&self.api))
    }

    /// Completes when it may stop to listen.
    pub fn stop<S: Future<Output = ()>>(&self, signal: S) -> impl Future<Output = ()> + use<S> {
        let api = Arc::clone(&self.api);
        async move { api.lifecycle.stop(signal).await }
    }

    /// What it does beside its calls: it warms up, and collects orphans. Poll this until the calls have ended.
    pub async fn work(&self) -> Infallible {
        let warm = async {
            let work = async {
                if !self.warm_up.is_zero() {
                    sleep(self.warm_up).await;
                }
            };
            self.api.lifecycle.start(work).await;
            pending::<Infallible>().await
        };
        tokio::select! {
            never = warm => never,
            never = init::reap_orphans() => never,
        }
    }
}
