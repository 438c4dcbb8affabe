//! What if the answer takes longer than anybody waits? It becomes a job: 202, a queue with a bound, and one worker.
//!
//! The queue is in memory, and dies with the process: a lost report is asked for again. Work that must not be lost belongs
//! into a broker or a table.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use uuid::Uuid;

use crate::bulkhead::Bulkhead;
use crate::error::{Error, Result};
use crate::report::{Day, Report};
use crate::store::Store;

/// So many jobs are remembered after they are done.
const REMEMBERED: usize = 1_000;
/// A service that is asked to stop works at its jobs for so long.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits.
    Queued,
    /// The worker has it.
    Running,
    /// Its report is there.
    Done,
    /// It has no report. It can be asked for again.
    Failed,
}

/// A report that will be made.
#[derive(Clone, Debug, Serialize)]
pub struct Job {
    /// Ours; it sorts by age.
    pub id: Uuid,
    /// Where it stands.
    pub state: State,
    /// When it is done.
    pub report: Option<Report>,
}

/// The jobs of this process.
#[derive(Clone, Debug)]
pub struct Jobs {
    known: Arc<Mutex<BTreeMap<Uuid, Job>>>,
    queue: mpsc::Sender<(Uuid, Day)>,
}

/// The worker, which ends when nobody can send jobs any more.
#[derive(Debug)]
pub struct Worker(JoinHandle<()>);

impl Jobs {
    /// A queue for so many jobs, and its worker.
    pub fn start(longest: usize, store: Store, reports: Bulkhead) -> (Self, Worker) {
        let (queue, mut waiting) = mpsc::channel::<(Uuid, Day)>(longest.max(1));
        let jobs = Self { known: Arc::default(), queue };
        let known = Arc::clone(&jobs.known);
        let worker = tokio::spawn(async move {
            while let Some((id, day)) = waiting.recv().await {
                note(&known, Job { id, state: State::Running, report: None });
                let place = reports.wait().await;
                let report = store.report(day).await;
                drop(place);
                let report =
                    report.inspect_err(|error| tracing::warn!(?error, %id, "a job failed")).ok();
                let state = if report.is_some() { State::Done } else { State::Failed };
                note(&known, Job { id, state, report });
            }
        });
        (jobs, Worker(worker))
    }

    // ANCHOR: add
    /// Takes the job, or refuses it when the queue is full. A queue without a bound would take a million, and answer the
    /// last of them tomorrow, if the memory lasts.
    pub fn add(&self, day: Day) -> Result<Job> {
        let place = self.queue.try_reserve().map_err(|_| Error::JOBS_FULL)?;
        let job = Job { id: Uuid::now_v7(), state: State::Queued, report: None };
        note(&self.known, job.clone());
        place.send((job.id, day));
        Ok(job)
    }
    // ANCHOR_END: add

    /// The job, if it is remembered.
    pub fn find(&self, id: Uuid) -> Result<Job> {
        lock(&self.known).get(&id).cloned().ok_or(Error::NOT_FOUND)
    }

    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.queue.max_capacity() - self.queue.capacity()
    }
}

impl Worker {
    /// Waits for the jobs that were accepted, for a while.
    pub async fn finish(self) {
        if timeout(PATIENCE, self.0).await.is_err() {
            tracing::warn!("jobs were left undone");
        }
    }
}

/// Notes how a job stands, and forgets the oldest. The newest are those that are not done yet.
fn note(known: &Mutex<BTreeMap<Uuid, Job>>, job: Job) {
    let mut known = lock(known);
    known.insert(job.id, job);
    let undone = |it: &&Job| matches!(it.state, State::Queued | State::Running);
    let undone = known.values().filter(undone).count();
    while known.len() > undone + REMEMBERED {
        known.pop_first();
    }
}

/// Nothing panics while it holds the lock, so poison is ignored.
fn lock(known: &Mutex<BTreeMap<Uuid, Job>>) -> MutexGuard<'_, BTreeMap<Uuid, Job>> {
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_that_are_done_are_forgotten_and_none_that_waits() {
        let known = Mutex::default();
        let id = |n: usize| Uuid::from_u128(n.try_into().unwrap());
        let job = |n, state| Job { id: id(n), state, report: None };
        for n in 0..REMEMBERED + 50 {
            note(&known, job(n, if n % 2 == 0 { State::Done } else { State::Failed }));
        }
        for n in 0..3 {
            note(&known, job(REMEMBERED + 50 + n, State::Queued));
        }
        let known = lock(&known);
        assert_eq!(known.len(), REMEMBERED + 3);
        assert!(!known.contains_key(&id(49)) && known.contains_key(&id(50)));
        assert!((0..3).all(|n| known.contains_key(&id(REMEMBERED + 50 + n))));
    }
}
