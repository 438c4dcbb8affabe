//! When is a failed attempt made again?

use std::time::Duration;

use rand::Rng;

/// Jitter: a delay is one of these shares of its step, at random. Those who failed together do not come back
/// together. Each share of each step has a delay queue of its own, so they are few.
const SHARES: [u32; 4] = [55, 70, 85, 100];
/// In seconds: a day. A channel that wishes for more, and be it for 2⁶⁴, is asked again all the same.
const LONGEST_WISH: u64 = 24 * 60 * 60;

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
    /// How long to wait after this many failures, the first being 1; nothing when it is time to give up. Not
    /// less than the seconds that the channel wishes for (`Retry-After`), up to a day.
    pub fn after(&self, failures: u16, wish: Option<u64>) -> Option<Duration> {
        let share = SHARES[rand::rng().random_range(0..SHARES.len())];
        let wish = Duration::from_secs(wish.unwrap_or_default().min(LONGEST_WISH));
        (failures < self.attempts).then(|| wish.max(self.step(failures) * share / 100))
    }

    /// The longest wait after this many failures, wishes aside.
    pub fn step(&self, failures: u16) -> Duration {
        self.first * 2_u32.saturating_pow(u32::from(failures.clamp(1, 20)) - 1)
    }
    // ANCHOR_END: schedule

    /// Every delay that has a queue.
    pub fn rungs(&self) -> impl Iterator<Item = Duration> {
        let last = self.attempts.saturating_sub(1).max(1);
        (1..=last).flat_map(|failures| SHARES.map(|share| self.step(failures) * share / 100))
    }

    /// The delay of the queue that keeps a message for this long: the shortest that is long enough, or the
    /// longest there is. Who comes back too early waits again.
    pub fn rung(&self, wait: Duration) -> Duration {
        // A tolerance, since a time that was written down in seconds may come back longer by a hair.
        let enough = self.rungs().filter(|rung| *rung + Duration::from_millis(1) >= wait).min();
        enough.or(self.rungs().max()).unwrap_or(self.first)
    }
}
// ANCHOR_END: backoff

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
    fn a_wish_lengthens_the_wait_and_never_shortens_it() {
        for failures in 1..5 {
            let wait = BACKOFF.after(failures, Some(0)).unwrap();
            assert!(wait >= BACKOFF.step(failures) * 55 / 100, "{wait:?} for a wish of nothing");
        }
        assert_eq!(BACKOFF.after(1, Some(30)), Some(Duration::from_secs(30)));
        assert_eq!(BACKOFF.after(1, Some(u64::MAX)), Some(Duration::from_hours(24)));
        assert_eq!(BACKOFF.after(5, Some(30)), None, "a wish is no reason to go on for ever");
    }

    #[test]
    fn those_who_failed_together_do_not_come_back_together() {
        let waits: std::collections::HashSet<_> = (0..50).map(|_| BACKOFF.after(3, None)).collect();
        assert!(waits.len() >= 2, "{waits:?}");
    }

    #[test]
    fn every_delay_has_a_queue_and_other_waits_have_the_next_longer() {
        for failures in 1..5 {
            let wait = BACKOFF.after(failures, None).unwrap();
            assert_eq!(BACKOFF.rung(wait), wait);
        }
        assert_eq!(BACKOFF.rung(Duration::from_millis(900)), Duration::from_secs(1));
        assert_eq!(BACKOFF.rung(Duration::ZERO), Duration::from_millis(550));
        assert_eq!(BACKOFF.rung(Duration::from_secs(99)), Duration::from_secs(8));
    }
}
