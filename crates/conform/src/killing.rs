//! How is a server killed while it is asked? When its clients have been promised enough.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;

use crate::target::{Target, eventually};

/// What the clients share: they ask until the server is gone or this is over.
#[derive(Debug, Default)]
pub struct Killing {
    promised: AtomicUsize,
    over: AtomicBool,
}

impl Killing {
    /// A client was promised something.
    pub fn promised(&self) {
        self.promised.fetch_add(1, Ordering::Relaxed);
    }

    /// The server was started again, or could not be killed: that must not keep its clients for ever.
    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    /// Runs the clients, and kills the server and starts it again after so many promises; what the clients say.
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
