//! How long does a value live, and why not all equally long?
//!
//! What is filled together (a deploy, a restart, a batch) would expire together, and the database would see
//! the whole crowd again. A random part of each life takes the crowd apart.

use std::time::Duration;

// ANCHOR: jitter
/// A time to live of which a random part is taken off.
#[derive(Clone, Copy, Debug)]
pub struct Ttl {
    /// The longest life. A bound that somebody has been promised stays a bound: jitter only shortens.
    pub longest: Duration,
    /// How much of it chance may take off: 0 none, 1 all.
    pub jitter: f64,
}

impl Ttl {
    /// A life for one value, a millisecond at least: Redis refuses 0.
    pub fn draw(self) -> Duration {
        let part = 1.0 - self.jitter * rand::random::<f64>();
        self.longest.mul_f64(part).max(Duration::from_millis(1))
    }
}
// ANCHOR_END: jitter

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_spread_over_the_jitter_and_never_longer_than_the_longest() {
        let ttl = Ttl { longest: Duration::from_secs(100), jitter: 0.1 };
        let lives: Vec<_> = (0..10_000).map(|_| ttl.draw().as_secs_f64()).collect();
        assert!(lives.iter().all(|life| (90.0..=100.0).contains(life)));
        // Each second of the ten gets a tenth, give or take six deviations.
        for from in 90..100 {
            let from = f64::from(from);
            let count = lives.iter().filter(|&&life| life >= from && life < from + 1.0).count();
            assert!((800..1_200).contains(&count), "{count} from {from}");
        }
    }

    #[test]
    fn without_jitter_all_lives_are_the_longest() {
        let ttl = Ttl { longest: Duration::from_secs(1), jitter: 0.0 };
        assert!((0..100).all(|_| ttl.draw() == ttl.longest));
        let all = Ttl { longest: Duration::from_millis(1), jitter: 1.0 };
        assert!((0..100).all(|_| all.draw() >= Duration::from_millis(1)));
    }
}
