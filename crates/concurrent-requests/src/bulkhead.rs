//! What may one slow dependency take from the others? A few connections, and no more.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};

/// A part of the ship that may fill with water.
#[derive(Clone, Debug)]
pub struct Bulkhead(Arc<Semaphore>);

impl Bulkhead {
    /// At most so many at once.
    pub fn of(places: usize) -> Self {
        Self(Arc::new(Semaphore::new(places.max(1))))
    }

    // ANCHOR: bulkhead
    /// A place, or a refusal. A report that waited here would keep its place at the door. Soon reports would hold all places
    /// there.
    pub fn enter(&self) -> Result<OwnedSemaphorePermit> {
        Arc::clone(&self.0).try_acquire_owned().map_err(|_| Error::REPORTS_BUSY)
    }
    // ANCHOR_END: bulkhead

    /// The same for a job, which may wait. Nothing if the service ends.
    pub async fn wait(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.0).acquire_owned().await.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_finds_no_place_is_refused_and_a_job_waits() {
        let reports = Bulkhead::of(1);
        let one = reports.enter().unwrap();
        assert!(matches!(reports.enter(), Err(Error::NotNow(_))));
        let job = tokio::spawn({
            let reports = reports.clone();
            async move { reports.wait().await.is_some() }
        });
        tokio::task::yield_now().await;
        assert!(!job.is_finished());
        drop(one);
        assert!(job.await.unwrap());
        assert!(reports.enter().is_ok());
    }
}
