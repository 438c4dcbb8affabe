//! An attempt did not succeed: when is it made again, and when is the job given up?

use std::{ops::RangeInclusive, time::Duration};

/// Jitter: a delay is a share of its step, at random, so that jobs that failed together do not come back together.
const JITTER: RangeInclusive<f64> = 0.55..=1.0;
/// In seconds: a day. A channel that asks for more, and be it for 2⁶⁴, is asked again all the same.
const MAX_RETRY_AFTER: u64 = 24 * 60 * 60;
/// After this many workers died while trying a job, assume that the job kills them.
pub const CRASHES: i32 = 5;
/// From this many on it is a suspect and is tried alone: other jobs were in flight beside it, and are suspects too.
pub const SUSPECT: i32 = 2;

/// Exponential backoff: each step is twice the one before.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Backoff {
    /// Milliseconds before the second attempt; twice as many before each further one
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(20..=600_000))]
    pub backoff_ms: u64,
    /// Failures after which a notification is dead
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=16))]
    pub attempts: u16,
}

// ANCHOR: backoff
impl Backoff {
    /// How long to wait after this many failures, the first being 1; nothing when it is time to give up. Not less than
    /// the seconds that the channel asks for (`Retry-After`), up to a day.
    pub fn after(&self, failures: u16, retry_after: Option<u64>) -> Option<Duration> {
        let wait = self.step(failures).mul_f64(rand::random_range(JITTER));
        let asked_for = Duration::from_secs(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER));
        (failures < self.attempts).then(|| asked_for.max(wait))
    }

    /// The longest wait after this many failures, if the channel asks for nothing.
    pub fn step(&self, failures: u16) -> Duration {
        let first = Duration::from_millis(self.backoff_ms);
        first * 2_u32.saturating_pow(u32::from(failures.clamp(1, 20)) - 1)
    }
}
// ANCHOR_END: backoff

/// What a claim leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// An attempt.
    Try,
    /// A wait, so that other jobs go first, and then an attempt while nothing else is in flight.
    Wait,
    /// The dead-letter queue.
    Bury,
}

// ANCHOR: verdict
/// What becomes of a job that was claimed. `was_cut_off`: its last attempt never ended, because its worker died;
/// `crashes` counts all such attempts, this one too.
pub fn verdict(was_cut_off: bool, crashes: i32) -> Verdict {
    match (was_cut_off, crashes) {
        (true, CRASHES..) => Verdict::Bury,
        // It may be the cause.
        (true, SUSPECT..) => Verdict::Wait,
        // A first crash is most likely not the job's fault: it is tried again at once, in its place in line. And if
        // the last attempt came to its end, the job has already waited, so it is tried now.
        _ => Verdict::Try,
    }
}
// ANCHOR_END: verdict

#[cfg(test)]
mod tests {
    use super::*;

    const BACKOFF: Backoff = Backoff { backoff_ms: 1_000, attempts: 5 };

    #[test]
    fn steps_double_and_jitter_only_shortens_them() {
        for (failures, step) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
            for _ in 0..50 {
                let wait = BACKOFF.after(failures, None).unwrap().as_secs_f64();
                assert!(wait >= f64::from(step) * 0.55 && wait <= f64::from(step), "{wait}");
            }
        }
        assert_eq!(BACKOFF.after(5, None), None);
    }

    #[test]
    fn retry_after_lengthens_the_wait_and_never_shortens_it() {
        for failures in 1..5 {
            let wait = BACKOFF.after(failures, Some(0)).unwrap();
            assert!(wait >= BACKOFF.step(failures).mul_f64(0.55), "{wait:?} for `Retry-After: 0`");
        }
        assert_eq!(BACKOFF.after(1, Some(30)), Some(Duration::from_secs(30)));
        assert_eq!(BACKOFF.after(1, Some(u64::MAX)), Some(Duration::from_hours(24)));
        assert_eq!(BACKOFF.after(5, Some(30)), None, "a header is no reason to go on for ever");
    }

    #[test]
    fn jobs_that_failed_together_do_not_come_back_together() {
        let waits: std::collections::HashSet<_> = (0..50).map(|_| BACKOFF.after(3, None)).collect();
        assert!(waits.len() >= 10, "{waits:?}");
    }

    #[test]
    fn a_job_is_suspected_only_when_workers_keep_dying_over_it() {
        assert_eq!(verdict(false, 0), Verdict::Try);
        // It was in flight beside the cause, or the machine was switched off.
        assert_eq!(verdict(true, 1), Verdict::Try);
        for crashes in SUSPECT..CRASHES {
            assert_eq!(verdict(true, crashes), Verdict::Wait, "{crashes} crashes");
        }
        assert_eq!(verdict(true, CRASHES), Verdict::Bury);
        assert_eq!(verdict(true, CRASHES + 1), Verdict::Bury);
    }

    #[test]
    fn a_suspect_that_has_waited_gets_its_attempt() {
        // Otherwise it would wait again and again, and never be tried.
        for crashes in 0..CRASHES {
            assert_eq!(verdict(false, crashes), Verdict::Try, "{crashes} crashes");
        }
    }
}
