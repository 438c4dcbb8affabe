//! What is lost when a process is killed? Work that takes time.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use edge::{FieldError, Mistakes, text::is_line};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

/// The body of `POST /jobs`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    name: String,
    milliseconds: u64,
}

/// Some work.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Job {
    /// What people call it.
    pub name: String,
    /// How long it takes.
    pub milliseconds: u64,
}

/// A longer job belongs in a queue, from which another worker takes it when this one has died.
pub const LONGEST: u64 = 10_000;

impl Job {
    /// Checks what was asked for.
    pub fn parse(asked: Asked) -> Result<Self, Vec<FieldError>> {
        let mut mistakes = Mistakes::default();
        let is_name = is_line(&asked.name) && (1..=100).contains(&asked.name.chars().count());
        let name = is_name.then_some(asked.name).ok_or("must be a line of 1 to 100 characters");
        let name = mistakes.note("name", name);
        let is_time = asked.milliseconds <= LONGEST;
        let time = is_time.then_some(asked.milliseconds).ok_or("must be at most 10000");
        let time = mistakes.note("milliseconds", time);
        mistakes.finish(name.zip(time).map(|(name, milliseconds)| Self { name, milliseconds }))
    }
}

/// The jobs of this process.
#[derive(Debug, Default)]
pub struct Jobs {
    done: AtomicU64,
    in_flight: AtomicU64,
}

/// Counts a job for as long as it runs, also if its client hangs up.
struct InFlight<'a>(&'a AtomicU64);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Jobs {
    /// Does one. It stands for a call to another service, or a report.
    pub async fn run(&self, job: Job) -> Job {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let _counted = InFlight(&self.in_flight);
        sleep(Duration::from_millis(job.milliseconds)).await;
        self.done.fetch_add(1, Ordering::Relaxed);
        job
    }

    /// How many are done, and how many are not done yet.
    pub fn counts(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.in_flight.load(Ordering::Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_job_has_a_name_on_one_line_and_ends_soon() {
        let parse = |name: &str, milliseconds| {
            let wrong = Job::parse(Asked { name: name.to_owned(), milliseconds }).err();
            wrong.into_iter().flatten().map(|error| error.field).collect::<Vec<_>>()
        };
        assert!(parse("report", 0).is_empty() && parse("ö", LONGEST).is_empty());
        assert_eq!(parse("", 1), ["name"]);
        assert_eq!(parse("two\nlines", LONGEST + 1), ["name", "milliseconds"]);
    }
}
