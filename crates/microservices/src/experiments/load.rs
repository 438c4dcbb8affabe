//! Who asks, while something happens? Requests at a steady rate, and what became of each.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use conform::target::within;
use lab::load::{self, http::Pool};
use tokio::{task::JoinHandle, time::timeout};

/// What became of one request.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// Its number, from 0.
    pub number: u64,
    /// The status; 0 if no answer came in time.
    pub status: u16,
}

/// Requests for paths at a rate, by clients who hang up after a while. The load goes on beside whatever else is done.
pub struct Load {
    all: Arc<Mutex<Vec<Seen>>>,
    sent: Arc<AtomicUsize>,
    over: Arc<AtomicBool>,
    sending: JoinHandle<anyhow::Result<()>>,
}

impl Load {
    /// Begins to ask the server at `127.0.0.1:PORT`.
    pub fn begin(
        host: &str,
        rate: f64,
        time: Duration,
        patience: Duration,
        path: impl Fn(u64) -> String + Send + Sync + 'static,
    ) -> Self {
        let (pool, all) = (Arc::new(Pool::of(host)), Arc::new(Mutex::new(Vec::new())));
        let (sent, over) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (kept, sending_now, asked_to_end) = (all.clone(), sent.clone(), over.clone());
        let sending = tokio::spawn(async move {
            let sent = load::open(rate, time, 20_000, |arrival| {
                let (pool, kept) = (Arc::clone(&pool), Arc::clone(&kept));
                let (sent, over) = (sending_now.clone(), asked_to_end.clone());
                let (number, path) = (arrival.number, path(arrival.number));
                async move {
                    sent.fetch_add(1, SeqCst);
                    if over.load(SeqCst) {
                        sent.fetch_sub(1, SeqCst);
                        return Ok(());
                    }
                    let status = timeout(patience, pool.get(&path)).await;
                    let status = status.ok().and_then(Result::ok).unwrap_or(0);
                    let seen = Seen { number, status };
                    kept.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
                    Ok(())
                }
            });
            sent.await.map(drop)
        });
        Self { all, sent, over, sending }
    }

    /// Waits for the last answer; what became of each, in their order.
    pub async fn end(mut self) -> anyhow::Result<Vec<Seen>> {
        (&mut self.sending).await??;
        Ok(sorted(&self.all))
    }

    /// Sends nothing more, whether or not the time is over, and waits this long for answers. What is not answered by then has
    /// failed.
    pub async fn stop(self, patience: Duration) -> Vec<Seen> {
        self.over.store(true, SeqCst);
        let answered = within(patience, "the last request is answered", async || {
            let answered = self.all.lock().unwrap_or_else(PoisonError::into_inner).len();
            Ok((answered == self.sent.load(SeqCst)).then_some(()))
        });
        let _ = answered.await;
        self.sending.abort();
        let mut all = sorted(&self.all);
        let answered: BTreeSet<_> = all.iter().map(|it| it.number).collect();
        // A number may be missing because it was never sent.
        let lost = self.sent.load(SeqCst).saturating_sub(all.len());
        let missing = (0_u64..).filter(|it| !answered.contains(it)).take(lost);
        all.extend(missing.map(|number| Seen { number, status: 0 }));
        all.sort_by_key(|it| it.number);
        all
    }
}

/// Nothing is sent any more, also where an experiment ends before its load does.
impl Drop for Load {
    fn drop(&mut self) {
        self.sending.abort();
    }
}

fn sorted(all: &Mutex<Vec<Seen>>) -> Vec<Seen> {
    let mut all = std::mem::take(&mut *all.lock().unwrap_or_else(PoisonError::into_inner));
    all.sort_by_key(|it| it.number);
    all
}

/// How many were answered with 200, of all.
pub fn share(seen: &[Seen]) -> f64 {
    failures(seen).map_or(0.0, |failed| 1.0 - failed as f64 / seen.len() as f64)
}

/// How many were not; nothing if there are none at all.
pub fn failures(seen: &[Seen]) -> Option<usize> {
    (!seen.is_empty()).then(|| seen.iter().filter(|it| it.status != 200).count())
}
