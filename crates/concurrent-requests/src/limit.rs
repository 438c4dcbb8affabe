//! How many may be at work if nobody knows what the dependency can do? Try, and watch the latency.
//!
//! Invariant: at least one may be at work, and at most as many as somebody has said.

use std::time::Duration;

/// After so many answers the best latency is measured again: the dependency may have become slower for good.
const FORGET: u32 = 100;
/// The part of a step that is taken at once, so that one slow answer changes little.
const SMOOTH: f64 = 0.2;

/// How many may be at work now.
#[derive(Debug)]
pub struct Limit {
    now: f64,
    most: f64,
    adapts: bool,
    /// The best latency since the last measurement: how long a request takes that waits for no other.
    best: Duration,
    answers: u32,
}

impl Limit {
    /// As many at once, or if it `adapts`, as many at the most.
    pub fn new(most: usize, adapts: bool) -> Self {
        let most = most.max(1) as f64;
        // From below: with many at work from the start, the best latency would already contain a wait.
        let now = if adapts { 1.0 } else { most };
        Self { now, most, adapts, best: Duration::MAX, answers: 0 }
    }

    /// A whole number.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "1 to `most`")]
    pub fn now(&self) -> usize {
        self.now as usize
    }

    // ANCHOR: learn
    /// A request took so long, while so many were at work. If it took twice as long as the best one, half of them only
    /// waited inside the dependency, and half as many would get as much done. A few more may always try (the square root),
    /// so the limit grows as long as the latency stays. This is the gradient of Netflix's `concurrency-limits`.
    pub fn learn(&mut self, took: Duration, at_work: usize) {
        if !self.adapts {
            return;
        }
        self.answers = (self.answers + 1) % FORGET;
        if self.answers == 0 {
            // Measured by itself, the best latency would contain the wait that this limit causes.
            self.now = (self.now / 2.0).max(1.0);
            self.best = Duration::MAX;
        }
        self.best = self.best.min(took);
        self.step(took, at_work);
    }

    /// A request took so long and would have taken longer, but nobody waited for its end. If that counted as an answer, the
    /// best latency would soon be the patience of the clients, and the limit would rise. It is a reason for less, never for
    /// more.
    pub fn learn_at_least(&mut self, took: Duration, at_work: usize) {
        if self.adapts && took > self.best {
            let before = self.now;
            self.step(took, at_work);
            self.now = self.now.min(before);
        }
    }

    fn step(&mut self, took: Duration, at_work: usize) {
        let gradient = self.best.as_secs_f64() / took.as_secs_f64().max(1e-6);
        let aim = self.now * gradient.clamp(0.5, 1.0) + self.now.sqrt();
        // With few requests the latency says nothing of a higher limit.
        if aim < self.now || at_work * 2 >= self.now() {
            self.now = (self.now + SMOOTH * (aim - self.now)).clamp(1.0, self.most);
        }
    }
    // ANCHOR_END: learn
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A dependency that works at so many at once, each for `takes`, and lets the others wait: 290 answers, so that the last
    /// one is none at which the limit is halved.
    fn settle(limit: &mut Limit, places: usize, takes: Duration) -> usize {
        for _ in 0..290 {
            let at_work = limit.now();
            let rounds = (at_work as f64 / places as f64).max(1.0);
            limit.learn(takes.mul_f64(rounds), at_work);
        }
        limit.now()
    }

    #[test]
    fn it_finds_what_the_dependency_can_do_and_finds_it_again() {
        let mut limit = Limit::new(100, true);
        let takes = Duration::from_millis(20);
        for places in [12, 4, 12, 30] {
            let found = settle(&mut limit, places, takes);
            assert!((places..=2 * places).contains(&found), "{places}: {found}");
        }
    }

    #[test]
    fn clients_that_hang_up_before_they_are_answered_lower_it() {
        let mut limit = Limit::new(100, true);
        let (takes, patience) = (Duration::from_millis(100), Duration::from_millis(400));
        settle(&mut limit, 6, takes);
        for _ in 0..290 {
            let at_work = limit.now();
            let took = takes.mul_f64((at_work as f64 / 2.0).max(1.0));
            if took > patience {
                limit.learn_at_least(patience, at_work);
            } else {
                limit.learn(took, at_work);
            }
        }
        // Eight at work take as long as the clients wait.
        assert!((2..8).contains(&limit.now()), "{}", limit.now());
    }

    #[test]
    fn clients_that_hang_up_never_raise_it() {
        let mut limit = Limit::new(100, true);
        let takes = Duration::from_millis(100);
        let before = settle(&mut limit, 6, takes);
        for _ in 0..100 {
            limit.learn_at_least(takes * 11 / 10, limit.now());
        }
        assert!(limit.now() <= before, "{before}, {}", limit.now());
    }

    #[test]
    fn a_dependency_that_is_farther_away_is_no_reason_for_less() {
        let mut limit = Limit::new(100, true);
        let before = settle(&mut limit, 8, Duration::from_millis(20));
        let after = settle(&mut limit, 8, Duration::from_millis(60));
        assert!(after.abs_diff(before) <= 2, "{before}, {after}");
    }

    #[test]
    fn it_stays_within_its_bounds_and_a_fixed_one_stays() {
        let mut limit = Limit::new(5, true);
        assert_eq!(settle(&mut limit, 1_000, Duration::from_millis(1)), 5);
        for _ in 0..100 {
            limit.learn(Duration::from_hours(1), 5);
        }
        assert!(limit.now() >= 1);
        let mut fixed = Limit::new(7, false);
        assert_eq!(settle(&mut fixed, 1, Duration::from_millis(20)), 7);
    }

    #[test]
    fn few_requests_do_not_raise_it() {
        let mut limit = Limit::new(100, true);
        let before = settle(&mut limit, 4, Duration::from_millis(20));
        for _ in 0..FORGET / 2 {
            limit.learn(Duration::from_millis(20), 1);
        }
        assert!(limit.now() <= before, "{before}, {}", limit.now());
    }
}
