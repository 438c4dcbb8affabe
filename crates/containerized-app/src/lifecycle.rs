//! When may requests come, and what happens between SIGTERM and the end?
//!
//! Invariant: a process goes from starting to ready to draining, and never back. Readiness follows the phase; liveness does
//! not.

use std::time::Duration;

use tokio::{sync::watch, time::sleep};

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It listens, and still loads what it needs.
    Starting,
    /// It takes work.
    Ready,
    /// It was told to end: it takes what still comes, and no more should come.
    Draining,
}

impl Phase {
    /// For people and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Draining => "draining",
        }
    }
}

/// The phase of this process.
#[derive(Debug)]
pub struct Lifecycle {
    phase: watch::Sender<Phase>,
    /// How long we still take connections after SIGTERM. Balancers hear late that we leave.
    linger: Duration,
}

impl Lifecycle {
    /// A process that starts.
    pub fn new(linger: Duration) -> Self {
        Self { phase: watch::Sender::new(Phase::Starting), linger }
    }

    /// Where it is.
    pub fn phase(&self) -> Phase {
        *self.phase.borrow()
    }

    // ANCHOR: lifecycle
    /// Does what has to be done before the first request, and then says that we are ready.
    pub async fn start(&self, warm_up: impl Future<Output = ()>) {
        warm_up.await;
        // A process that was told to end while it started does not become ready.
        self.phase.send_if_modified(|phase| {
            let starts = *phase == Phase::Starting;
            if starts {
                *phase = Phase::Ready;
            }
            starts
        });
    }

    /// Completes when we may stop to listen. The order matters: first we say that we are not ready, then balancers get the
    /// time to hear of it, and only then new connections are refused. Requests in flight are answered after that.
    pub async fn stop(&self, signal: impl Future<Output = ()>) {
        signal.await;
        self.phase.send_replace(Phase::Draining);
        sleep(self.linger).await;
    }
    // ANCHOR_END: lifecycle
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::Instant;

    use super::*;

    #[tokio::test]
    async fn a_process_is_ready_after_its_warm_up_and_not_before() {
        let lifecycle = Lifecycle::new(Duration::ZERO);
        tokio::select! {
            () = lifecycle.start(pending()) => panic!("it never ends"),
            () = ready(()) => {}
        }
        assert_eq!(lifecycle.phase(), Phase::Starting);
        lifecycle.start(ready(())).await;
        assert_eq!(lifecycle.phase(), Phase::Ready);
    }

    #[tokio::test]
    async fn a_process_that_was_told_to_end_does_not_become_ready_any_more() {
        let lifecycle = Lifecycle::new(Duration::ZERO);
        lifecycle.stop(ready(())).await;
        lifecycle.start(ready(())).await;
        assert_eq!(lifecycle.phase(), Phase::Draining);
    }

    #[tokio::test]
    async fn it_still_listens_for_a_while_after_the_signal() {
        let lifecycle = Lifecycle::new(Duration::from_millis(100));
        let begun = Instant::now();
        lifecycle.stop(ready(())).await;
        assert!(begun.elapsed() >= Duration::from_millis(100));
    }
}
