//! Is memory bounded, and is a decision by several policies all or none?

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

fn limits(algorithm: Algorithm, policies: &[&str]) -> Limits {
    let policies: Vec<Policy> = policies.iter().map(|policy| policy.parse().unwrap()).collect();
    Limits::new(algorithm, policies).unwrap()
}

/// A memory, and the hands of its clock.
fn memory(limits: &Limits, max_keys: usize) -> (Memory, Arc<AtomicU64>) {
    let now = Arc::new(AtomicU64::new(1_000_000_000_000));
    let hands = Arc::clone(&now);
    let clock: Clock = Arc::new(move || hands.load(Ordering::Relaxed));
    (Memory::new(limits, max_keys, clock), now)
}

fn key(n: u32) -> Key {
    Key::of("test", &n.to_be_bytes())
}

#[test]
fn a_fresh_client_gets_its_limit_and_not_one_more() {
    for algorithm in Algorithm::ALL {
        let (memory, _) = memory(&limits(algorithm, &["api=100/15m"]), 10);
        let passed = (0..150).filter(|_| memory.decide(key(1), 1).allowed).count();
        assert_eq!(passed, 100, "{algorithm:?}");
        assert!(memory.decide(key(2), 1).allowed, "another client is another");
    }
}

#[test]
fn of_several_policies_all_take_or_none() {
    for algorithm in Algorithm::ALL {
        let limits = limits(algorithm, &["api=10/15m", "burst=3/1s"]);
        let (memory, now) = memory(&limits, 100);
        let remaining = |decision: &Decision| {
            decision.outcomes().iter().map(|outcome| outcome.remaining).collect::<Vec<_>>()
        };
        let mut decision = memory.decide(key(1), 3);
        assert!(decision.allowed);
        assert_eq!(remaining(&decision), [7, 0]);
        for _ in 0..20 {
            decision = memory.decide(key(1), 1);
            assert!(!decision.allowed && decision.wait() > 0 && decision.wait() <= 2_000_000);
            assert_eq!(remaining(&decision), [7, 0], "{algorithm:?}: a refused one took");
        }
        now.fetch_add(2_000_000, Ordering::Relaxed);
        assert_eq!(remaining(&memory.decide(key(1), 1)), [6, 2], "{algorithm:?}");
    }
}

#[test]
fn a_cost_above_the_limit_takes_all_and_passes_once() {
    for algorithm in Algorithm::ALL {
        let (memory, _) = memory(&limits(algorithm, &["api=10/15m"]), 100);
        assert!(memory.decide(key(1), 1_000).allowed);
        assert!(!memory.decide(key(1), 1).allowed, "{algorithm:?}");
        assert!(memory.decide(key(1), 0).allowed, "what costs nothing always passes");
    }
}

#[test]
fn refused_requests_that_count_keep_an_impatient_client_out() {
    for (algorithm, impatient) in [
        (Algorithm::FixedWindow, true),
        (Algorithm::SlidingLog, false),
        (Algorithm::SlidingWindow, false),
        (Algorithm::TokenBucket, false),
        (Algorithm::Gcra, false),
    ] {
        for count_refused in [false, true] {
            let limits = limits(algorithm, &["api=10/1s"]).counting_refused(count_refused);
            let (memory, now) = memory(&limits, 100);
            let mut passed = 0;
            // Fifty times a second for three seconds.
            for _ in 0..150 {
                passed += u64::from(memory.decide(key(1), 1).allowed);
                now.fetch_add(20_000, Ordering::Relaxed);
            }
            // A fixed window forgets at its end, whatever was counted.
            let expected = !count_refused || impatient;
            assert_eq!(passed > 20, expected, "{algorithm:?} {count_refused}: {passed} passed");
        }
    }
}

#[test]
fn no_more_clients_are_remembered_than_allowed_and_the_heavy_ones_last() {
    let (memory, _) = memory(&limits(Algorithm::Gcra, &["api=100/15m"]), 640);
    for heavy in 0..20 {
        for _ in 0..100 {
            memory.decide(key(heavy), 1);
        }
    }
    for light in 100..50_000 {
        memory.decide(key(light), 1);
        assert!(memory.clients() <= 640);
    }
    let forgotten = (0..20).filter(|&heavy| memory.decide(key(heavy), 1).allowed).count();
    assert_eq!(forgotten, 0, "a flood of new clients pushed out the heavy ones");
}

#[test]
fn idle_clients_are_forgotten_before_the_memory_grows() {
    for algorithm in Algorithm::ALL {
        let (memory, now) = memory(&limits(algorithm, &["api=100/1s"]), 100_000);
        let (mut idle, mut busy) = (0, 0);
        // Ten waves of new clients, and after each a pause in which they become idle. Then fifty thousand without a
        // pause.
        for n in 0..100_000 {
            if n % 5_000 == 0 && n < 50_000 {
                now.fetch_add(3_000_000, Ordering::Relaxed);
            }
            memory.decide(key(n), 1);
            if n < 50_000 {
                idle = idle.max(memory.clients());
            }
            busy = memory.clients();
        }
        assert!(idle < 16_000, "{algorithm:?}: {idle} of 50,000 remembered, 5,000 were not idle");
        assert!(busy > 49_000, "{algorithm:?}: {busy} of 50,000 remembered, who were not idle");
    }
}
