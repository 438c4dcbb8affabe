//! Who is watching while Redis goes away? Readers and writers that remember what they were promised.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use conform::http::header;
use futures_util::future::join_all;
use lab::{Lab, Target, load::median};
use tokio::{task::JoinSet, time::sleep};

use super::fixture::renamed;
use crate::cases::client::{Client, is_hit, name};

/// Hot users that the load only reads.
pub const QUIET: i64 = 20;
/// Users that are changed through the process without Redis, and then read at once through the other.
const PROBED: i64 = 5;

/// Two processes, their clients, and what those were promised.
#[derive(Clone)]
pub struct Witnesses {
    /// A client of the process that Redis is cut off from, and one of the other.
    pub clients: [Client; 2],
    /// For each user, the number of the last change that was answered. Index 0 is nobody.
    promised: Arc<Vec<AtomicU64>>,
    /// Tells the load to end.
    pub end: Arc<AtomicBool>,
    /// Tells the readers to leave the quiet users alone.
    pub hold: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    writers: u16,
}

#[derive(Default)]
struct Seen {
    phase: String,
    rows: Vec<Vec<String>>,
    failed: Vec<String>,
    stale: Vec<String>,
    reads: Vec<f64>,
    writes: Vec<f64>,
    hits: u64,
    bypasses: u64,
    all_reads: u64,
    all_writes: u64,
    slowest_read: f64,
    /// Changes that were answered while Redis was away from a process.
    writes_while_away: u64,
}

impl Witnesses {
    /// Nothing has been seen yet.
    pub fn new(clients: [Client; 2], writers: u16) -> anyhow::Result<Self> {
        let users = usize::try_from(Self::users(writers))? + 1;
        Ok(Self {
            clients,
            promised: Arc::new((0..users).map(|_| AtomicU64::new(0)).collect()),
            end: Arc::default(),
            hold: Arc::default(),
            seen: Arc::default(),
            writers,
        })
    }

    /// How many users there have to be.
    pub fn users(writers: u16) -> u32 {
        u32::try_from(QUIET + PROBED).unwrap_or(0) + u32::from(writers)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Readers of all users, and a writer for each of the users that are not quiet.
    pub fn load(&self, readers: u16) -> JoinSet<()> {
        let mut load = JoinSet::new();
        for _ in 0..readers {
            let witnesses = self.clone();
            load.spawn(async move {
                let users = witnesses.promised.len() - 1;
                while !witnesses.end.load(Ordering::Relaxed) {
                    // Chosen at random, so that each process reads each user, whichever process changes it.
                    let (process, user) = (rand::random_range(0..2), rand::random_range(1..=users));
                    let id = i64::try_from(user).unwrap_or(1);
                    if id <= QUIET && witnesses.hold.load(Ordering::Relaxed) {
                        sleep(Duration::from_millis(1)).await;
                        continue;
                    }
                    witnesses.read(&witnesses.clients[process], id).await;
                    // A short pause: this is about what is answered, and not about how much.
                    sleep(Duration::from_millis(1)).await;
                }
            });
        }
        for n in 0..self.writers {
            let witnesses = self.clone();
            load.spawn(async move {
                let id = QUIET + 1 + i64::from(n);
                for change in 1.. {
                    if witnesses.end.load(Ordering::Relaxed) {
                        break;
                    }
                    let client = &witnesses.clients[usize::from(n % 2)];
                    // A failure is noted in `failed`.
                    let _ = witnesses.write(client, id, change).await;
                    sleep(Duration::from_millis(5)).await;
                }
            });
        }
        load
    }

    /// Reads a user, who must not be older than what was promised before.
    async fn read(&self, client: &Client, id: i64) {
        let Some(promised) = usize::try_from(id).ok().and_then(|id| self.promised.get(id)) else {
            return;
        };
        let promised = promised.load(Ordering::SeqCst);
        let began = Instant::now();
        let read = client.read(id).await;
        let took = began.elapsed().as_secs_f64() * 1e3;
        let read = async {
            let read = read?;
            let (cache, hit) = (header(&read, "cache-status").to_owned(), is_hit(&read));
            anyhow::Ok((cache, hit, name(read).await?))
        };
        let read = read.await;
        let mut seen = self.seen();
        let phase = seen.phase.clone();
        match read {
            Ok((cache, hit, name)) => {
                let number = change_of(&name);
                if number < promised {
                    seen.stale.push(format!("{phase}: {number} after {promised}: {cache}"));
                }
                seen.hits += u64::from(hit);
                seen.bypasses += u64::from(cache.contains("bypass"));
                seen.all_reads += 1;
                seen.reads.push(took);
                seen.slowest_read = seen.slowest_read.max(took);
            }
            Err(error) => seen.failed.push(format!("{phase}: a read: {error:#}")),
        }
    }

    /// Changes a user, and remembers the promise when it is answered.
    pub async fn write(&self, client: &Client, id: i64, change: u64) -> anyhow::Result<()> {
        let user = renamed(id, &format!("change {change}"));
        let began = Instant::now();
        let written = client.change(id, &user).await.map(|answer| answer.status().as_u16());
        let took = began.elapsed().as_secs_f64() * 1e3;
        if let Ok(200) = written
            && let Some(promised) = usize::try_from(id).ok().and_then(|id| self.promised.get(id))
        {
            promised.fetch_max(change, Ordering::SeqCst);
        }
        let mut seen = self.seen();
        match written {
            Ok(200) => {
                seen.writes.push(took);
                seen.all_writes += 1;
                Ok(())
            }
            other => {
                let failed = format!("{}: a change: {other:?}", seen.phase);
                seen.failed.push(failed.clone());
                bail!(failed)
            }
        }
    }

    /// Makes users hot in the process that has Redis, changes them through the other one, and reads them in the first
    /// again as soon as the change is answered. It does so one after another, so that some fall between two
    /// confirmations.
    pub async fn probe(&self, change: u64) {
        let [far, near] = &self.clients;
        join_all((1..=PROBED).map(|n| async move {
            let id = QUIET + i64::from(self.writers) + n;
            sleep(Duration::from_millis(40) * u32::try_from(n).unwrap_or(0)).await;
            self.read(near, id).await;
            // A failure is noted in `failed`.
            let _ = self.write(far, id, change).await;
            self.read(near, id).await;
        }))
        .await;
    }

    /// Lets the load go on for a while, and notes what was seen.
    pub async fn phase(&self, lab: &Lab, name: &str, lasts: Duration) -> anyhow::Result<()> {
        lab.progress(0, 0, name);
        self.begin(name);
        sleep(lasts).await;
        let mut seen = self.seen();
        let (reads, writes) = (std::mem::take(&mut seen.reads), std::mem::take(&mut seen.writes));
        let slowest = reads.iter().copied().fold(0.0, f64::max);
        let row = vec![
            name.to_owned(),
            reads.len().to_string(),
            seen.hits.to_string(),
            seen.bypasses.to_string(),
            format!("{slowest:.0}"),
            writes.len().to_string(),
            format!("{:.0}", median(writes.clone())),
        ];
        seen.rows.push(row);
        if !writes.is_empty() {
            lab.figure(format!("{name}: a change takes, median"), median(writes.clone()), "ms");
        }
        if name != "all is well" && name != "after all that" {
            seen.writes_while_away += writes.len() as u64;
        }
        Ok(())
    }

    fn begin(&self, name: &str) {
        let mut seen = self.seen();
        name.clone_into(&mut seen.phase);
        (seen.hits, seen.bypasses) = (0, 0);
        seen.reads.clear();
        seen.writes.clear();
    }

    /// Waits until both processes answer from Redis again by themselves, and returns whether they do.
    pub async fn hits_return(&self, lab: &Lab, name: &str) -> anyhow::Result<bool> {
        self.begin(&format!("after: {name}"));
        let healed = Instant::now();
        let mut back = true;
        for client in &self.clients {
            while back && !is_hit(&client.read(1).await?) {
                sleep(Duration::from_millis(5)).await;
                back = healed.elapsed() < Duration::from_secs(20);
            }
        }
        let seen = if back { "they do" } else { "they do not" };
        lab.check(format!("{name}: hits return"), "within 20 s", seen, back);
        if back {
            let took = healed.elapsed().as_secs_f64();
            lab.figure(format!("{name}: hits are back after"), took, "s");
        }
        Ok(back)
    }

    /// Checks that everything was as promised.
    pub async fn report(&self, lab: &Lab) -> anyhow::Result<()> {
        // In the end, every user is read once more through both processes.
        for id in 1..self.promised.len() {
            for client in &self.clients {
                self.read(client, i64::try_from(id).context("an id")?).await;
            }
        }
        let seen = self.seen();
        let columns = [
            "Redis is",
            "reads",
            "hits",
            "bypasses",
            "slowest read (ms)",
            "changes",
            "a change takes (ms, median)",
        ];
        lab.table("What clients of the two processes saw", &columns, seen.rows.clone());
        lab.figure("reads", seen.all_reads as f64, "");
        lab.figure("changes", seen.all_writes as f64, "");
        // The time-out of Redis is 100 ms. Then the read goes to the database, as all others do.
        let target = Target::AtMost(300.0);
        lab.figure_with_target("slowest read of all", seen.slowest_read, "ms", target);
        let few = |all: &[String]| match all {
            [] => "none".to_owned(),
            [first, ..] => format!("{}, such as {first}", all.len()),
        };
        let failed = few(&seen.failed);
        lab.check("requests that failed", "none", failed, seen.failed.is_empty());
        let stale = few(&seen.stale);
        lab.check(
            "reads that were older than a change answered before",
            "none",
            stale,
            seen.stale.is_empty(),
        );
        let away = seen.writes_while_away;
        lab.check("changes answered while Redis was away", "1 or more", away, away > 0);
        Ok(())
    }
}

/// `change 7` is 7; the name that the user had at first is 0.
fn change_of(name: &str) -> u64 {
    name.strip_prefix("change ").and_then(|number| number.parse().ok()).unwrap_or(0)
}
