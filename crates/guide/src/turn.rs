//! Which experiment is running? Only one runs at a time: two would disturb each other's measurements.

use std::sync::Arc;

use serde::Serialize;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// An experiment, as a page names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Named {
    /// The answer's name.
    pub answer: String,
    /// Its own.
    pub experiment: String,
}

#[derive(Clone, Debug)]
struct Running {
    named: Named,
    stop: CancellationToken,
}

/// Gives out the turn.
#[derive(Clone, Debug)]
pub struct Turns {
    running: Arc<watch::Sender<Option<Running>>>,
    /// Cancelling this stops all runs.
    stopping: CancellationToken,
}

impl Turns {
    /// No experiment has the turn yet.
    pub fn new(stopping: CancellationToken) -> Self {
        Self { running: Arc::new(watch::Sender::new(None)), stopping }
    }

    /// The experiment that runs now.
    pub fn running(&self) -> Option<Named> {
        self.running.borrow().as_ref().map(|running| running.named.clone())
    }

    /// Takes the turn. Fails with the name of the running experiment. If that one is being stopped, waits for it: that
    /// takes only moments, and a reader may press *Run* directly after *Stop*.
    pub async fn take(&self, named: Named) -> Result<Turn, Named> {
        let mine = Running { named, stop: self.stopping.child_token() };
        loop {
            let mut other = None;
            self.running.send_if_modified(|running| {
                other.clone_from(running);
                *running = other.clone().or_else(|| Some(mine.clone()));
                other.is_none()
            });
            match other {
                None => return Ok(Turn { stop: mine.stop, running: Arc::clone(&self.running) }),
                Some(other) if !other.stop.is_cancelled() => return Err(other.named),
                Some(_) => {
                    // Fails only if the sender is gone, and we have one.
                    let _ = self.running.subscribe().wait_for(Option::is_none).await;
                }
            }
        }
    }
}

/// The right to run. Dropping it gives the turn back.
#[derive(Debug)]
pub struct Turn {
    /// Stops the run.
    pub stop: CancellationToken,
    running: Arc<watch::Sender<Option<Running>>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.running.send_replace(None);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn named(experiment: &str) -> Named {
        Named { answer: "some".to_owned(), experiment: experiment.to_owned() }
    }

    #[tokio::test]
    async fn whoever_comes_second_is_told_what_runs() {
        let turns = Turns::new(CancellationToken::new());
        let first = turns.take(named("first")).await.unwrap();
        assert_eq!(turns.take(named("second")).await.unwrap_err(), named("first"));
        assert_eq!(turns.running(), Some(named("first")));
        drop(first);
        assert_eq!(turns.running(), None);
        turns.take(named("second")).await.unwrap();
    }

    #[tokio::test]
    async fn one_that_is_being_stopped_is_waited_for() {
        let turns = Turns::new(CancellationToken::new());
        let first = turns.take(named("first")).await.unwrap();
        first.stop.cancel();
        let mut second = std::pin::pin!(turns.take(named("second")));
        assert!(second.as_mut().now_or_never().is_none(), "it does not wait");
        drop(first);
        second.await.unwrap();
    }

    #[tokio::test]
    async fn all_are_stopped_together() {
        let stopping = CancellationToken::new();
        let turn = Turns::new(stopping.clone()).take(named("first")).await.unwrap();
        stopping.cancel();
        assert!(turn.stop.is_cancelled());
    }
}
