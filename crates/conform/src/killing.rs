//! How do we kill a server under load? After its clients have got a given number of promises.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;

use crate::target::{Target, eventually};

/// The state that the clients share. They send requests until the server is gone or this is over.
#[derive(Debug, Default)]
pub struct Killing {
    promised: AtomicUsize,
    over: AtomicBool,
}

impl Killing {
    /// Counts a promise to a client.
    pub fn promised(&self) {
        self.promised.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether the server was started again or could not be killed. In both cases the clients must end.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Runs the clients, and kills the server and starts it again after this many promises. Returns what the clients
    /// return.
    pub async fn after<F: Future>(
        &self,
        promises: usize,
        target: &Target,
        clients: impl Iterator<Item = F>,
    ) -> anyhow::Result<Vec<F::Output>> {
        let killing = async {
            let what =
                format!("the clients hear {promises} good answers, as one of the plain cases does");
            let enough = eventually(&what, async || {
                Ok((self.promised.load(Ordering::Relaxed) >= promises).then_some(()))
            });
            let outcome = match enough.await {
                Ok(()) => target.restart().await,
                Err(error) => Err(error),
            };
            self.over.store(true, Ordering::Relaxed);
            outcome
        };
        let (said, killed) = tokio::join!(join_all(clients), killing);
        killed.map(|()| said)
    }
}
