//! An attempt did not succeed: when is it made again, and when is the job given up?

use std::time::Duration;

use rand::Rng;

/// Jitter: a delay is one of these shares of its step, at random, so that jobs that failed together do not come back
/// together. There are few, because each share of each step has a delay queue of its own.
const SHARES: [u32; 4] = [55, 70, 85, 100];
/// In seconds: a day. A channel that asks for more, and be it for 2⁶⁴, is asked again all the same.
const LONGEST_WISH: u64 = 24 * 60 * 60;
/// After this many workers died while trying a job, assume that the job kills them.
pub const CRASHES: i32 = 5;
/// From this many on it is a suspect and is tried alone: other jobs were in flight beside it, and are suspects too.
pub const SUSPECT: i32 = 2;

/// Exponential backoff: each step is twice the one before.
#[derive(Clone, Copy, Debug)]
pub struct Backoff {
    /// The first step.
    pub first: Duration,
    /// After so many failures a job is dead.
    pub attempts: u16,
}

// ANCHOR: backoff
impl Backoff {
    // ANCHOR: schedule
    /// How long to wait after this many failures, the first being 1; nothing when it is time to give up. Not less than
    /// the seconds that the channel asks for (`Retry-After`), up to a day.
    pub fn after(&self, failures: u16, retry_after: Option<u64>) -> Option<Duration> {
        let share = SHARES[rand::rng().random_range(0..SHARES.len())];
        let wish = Duration::from_secs(retry_after.unwrap_or_default().min(LONGEST_WISH));
        (failures < self.attempts).then(|| wish.max(self.step(failures) * share / 100))
    }

    /// The longest wait after this many failures, if the channel asks for nothing.
    pub fn step(&self, failures: u16) -> Duration {
        self.first * 2_u32.saturating_pow(u32::from(failures.clamp(1, 20)) - 1)
    }
    // ANCHOR_END: schedule

    /// Every delay that has a queue.
    pub fn delay_steps(&self) -> impl Iterator<Item = Duration> {
        let last = self.attempts.saturating_sub(1).max(1);
        (1..=last).flat_map(|failures| SHARES.map(|share| self.step(failures) * share / 100))
    }

    /// The delay of the queue that keeps a message for this long: the shortest that is long enough, or the longest
    /// there is. A message that comes back too early waits again.
    pub fn delay_step(&self, wait: Duration) -> Duration {
        // A millisecond of tolerance: a time that was stored in seconds may come back a little longer.
        let enough = self.delay_steps().filter(|step| *step + Duration::from_millis(1) >= wait);
        enough.min().or(self.delay_steps().max()).unwrap_or(self.first)
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

    const BACKOFF: Backoff = Backoff { first: Duration::from_secs(1), attempts: 5 };

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
            assert!(wait >= BACKOFF.step(failures) * 55 / 100, "{wait:?} for a wish of nothing");
        }
        assert_eq!(BACKOFF.after(1, Some(30)), Some(Duration::from_secs(30)));
        assert_eq!(BACKOFF.after(1, Some(u64::MAX)), Some(Duration::from_hours(24)));
        assert_eq!(BACKOFF.after(5, Some(30)), None, "a wish is no reason to go on for ever");
    }

    #[test]
    fn jobs_that_failed_together_do_not_come_back_together() {
        let waits: std::collections::HashSet<_> = (0..50).map(|_| BACKOFF.after(3, None)).collect();
        assert!(waits.len() >= 2, "{waits:?}");
    }

    #[test]
    fn every_delay_has_a_queue_and_other_waits_have_the_next_longer() {
        for failures in 1..5 {
            let wait = BACKOFF.after(failures, None).unwrap();
            assert_eq!(BACKOFF.delay_step(wait), wait);
        }
        assert_eq!(BACKOFF.delay_step(Duration::from_millis(900)), Duration::from_secs(1));
        assert_eq!(BACKOFF.delay_step(Duration::ZERO), Duration::from_millis(550));
        assert_eq!(BACKOFF.delay_step(Duration::from_secs(99)), Duration::from_secs(8));
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
