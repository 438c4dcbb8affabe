//! How long does a value live, why do not all live equally long, and who reloads a value before its end?
//!
//! Values that are filled together (after a deploy, a restart, a batch) would expire together, and the database would
//! see all of their loads at once. So a random part is taken off each life.

use std::time::Duration;

// ANCHOR: jitter
/// A time to live of which a random part is taken off.
#[derive(Clone, Copy, Debug)]
pub struct Ttl {
    /// The longest life. Somebody may have been promised this bound, so jitter only shortens.
    pub longest: Duration,
    /// How much of it a random part may take off: 0 none, 1 all.
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

// ANCHOR: absence
/// How long to keep what was loaded.
///
/// The absence of a user is kept too, or each request for an id that nobody has would reach the database. It is kept
/// for a short time only, because it takes up memory, and an attacker can ask for as many ids as there are numbers.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A user.
    pub user: Ttl,
    /// An absence: nobody has the id.
    pub absence: Ttl,
}

impl Lives {
    /// A life for a user or for an absence, if it is to be kept at all.
    pub fn draw(&self, is_user: bool) -> Option<Duration> {
        let ttl = if is_user { self.user } else { self.absence };
        (!ttl.longest.is_zero()).then(|| ttl.draw())
    }
}
// ANCHOR_END: absence

// ANCHOR: xfetch
/// Whether a reader should reload now: `now − delta · beta · ln(rand) ≥ expiry`, with `left` for `expiry − now`. This
/// is `XFetch`, of Vattani and others, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015.
///
/// `load_time` is the paper's delta: how long the last load took. With `beta` at 1 reloads are spread best. A larger
/// `beta` reloads earlier, 0 never. `rand` is uniform in (0, 1], so its logarithm is at most 0 and never infinite.
pub fn is_due(left: Duration, load_time: Duration, beta: f64, rand: f64) -> bool {
    -load_time.as_secs_f64() * beta * rand.ln() >= left.as_secs_f64()
}

/// Decides by chance whether this reader should reload.
pub fn draw(left: Duration, load_time: Duration, beta: f64) -> bool {
    is_due(left, load_time, beta, 1.0 - rand::random::<f64>())
}
// ANCHOR_END: xfetch

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Duration = Duration::from_millis(100);

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

    fn lives(absence: u64) -> Lives {
        let ttl = |seconds| Ttl { longest: Duration::from_secs(seconds), jitter: 0.0 };
        Lives { user: ttl(3_600), absence: ttl(absence) }
    }

    #[test]
    fn an_absence_lives_for_a_short_time_of_its_own() {
        assert_eq!(lives(10).draw(true), Some(Duration::from_hours(1)));
        assert_eq!(lives(10).draw(false), Some(Duration::from_secs(10)));
    }

    #[test]
    fn a_life_of_zero_means_that_it_is_not_kept() {
        assert_eq!(lives(0).draw(false), None);
        assert_eq!(lives(0).draw(true), Some(Duration::from_hours(1)));
    }

    #[test]
    fn the_chance_of_a_reload_is_e_to_the_minus_left_over_load_time() {
        for left in [0.05_f64, 0.1, 0.3] {
            let due = (1..=100_000)
                .filter(|&n| {
                    is_due(Duration::from_secs_f64(left), LOAD, 1.0, f64::from(n) / 100_000.0)
                })
                .count() as f64;
            let expected = (-left / 0.1).exp();
            assert!((due / 100_000.0 - expected).abs() < 1e-4, "{due} at {left}");
        }
    }

    #[test]
    fn with_beta_zero_no_reload_is_early_and_at_the_end_one_is_certain() {
        assert!(!is_due(Duration::from_nanos(1), LOAD, 0.0, f64::MIN_POSITIVE));
        assert!(is_due(Duration::ZERO, LOAD, 1.0, 1.0));
        assert!((0..10_000).all(|_| !draw(Duration::from_hours(1), LOAD, 1.0)));
    }
}
