//! What does a user see in the end? Their client comes back whenever its stream ends, with the last number it has seen.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use tokio::time::{Instant, sleep, timeout_at};

use crate::cases::{client::Client, stream::Frame};

/// Everything that one user's client has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Every frame, in the order in which they came.
    pub frames: Vec<Frame>,
}

impl Seen {
    /// Adds what comes, until so many different jobs were seen or the deadline is over.
    pub async fn watch(&mut self, client: &Client, user: &str, jobs: usize, deadline: Instant) {
        let mut distinct: HashSet<_> =
            self.frames.iter().map(|frame| frame.job_id.clone()).collect();
        while distinct.len() < jobs && Instant::now() < deadline {
            let after = self.frames.last().map_or(0, |frame| frame.seq);
            let Ok(mut stream) = client.stream(user, after).await else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            while distinct.len() < jobs {
                match timeout_at(deadline, stream.next()).await {
                    Ok(Ok(Some(frame))) => {
                        distinct.insert(frame.job_id.clone());
                        self.frames.push(frame);
                    }
                    _ => break,
                }
            }
            stream.close().await;
        }
    }

    /// The same, until these jobs were seen. More than these may come: a call whose answer got lost may have been a
    /// good one.
    pub async fn watch_for(
        &mut self,
        client: &Client,
        user: &str,
        jobs: &[String],
        deadline: Instant,
    ) {
        let mut wanted = jobs.len();
        while self.missing(jobs) > 0 && Instant::now() < deadline {
            self.watch(client, user, wanted, deadline).await;
            wanted = self.times().len() + 1;
        }
    }

    /// How many of these jobs were never seen.
    pub fn missing(&self, jobs: &[String]) -> usize {
        let times = self.times();
        jobs.iter().filter(|job| !times.contains_key(job.as_str())).count()
    }

    /// How many jobs were seen more than once.
    pub fn twice(&self) -> usize {
        self.times().values().filter(|&&times| times > 1).count()
    }

    fn times(&self) -> HashMap<&str, usize> {
        let mut times = HashMap::new();
        for frame in &self.frames {
            *times.entry(frame.job_id.as_str()).or_default() += 1;
        }
        times
    }
}
