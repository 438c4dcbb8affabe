//! Does each algorithm keep what it promises? Property tests, over random traffic.

use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::{
    bucket::{Gcra, TokenBucket},
    sliding_log::SlidingLog,
    window::{FixedWindow, SlidingWindow},
};

const START: Micros = 1_000_000_000_000;

/// Whether the request passes; takes if it does.
fn ask<C: Counter>(counter: &mut C, quota: &Quota, now: Micros, cost: u64) -> bool {
    counter.advance(quota, now);
    let passes = counter.wait(quota, now, cost) == 0;
    if passes {
        counter.take(quota, now, cost);
    }
    passes
}

/// Holds one algorithm to what it promises, for one client's requests: a pause before each, and its cost.
fn keeps_its_promises<C: Counter + Clone>(
    algorithm: Algorithm,
    quota: &Quota,
    requests: &[(Micros, u64)],
) -> Result<(), TestCaseError> {
    let (mut counter, mut now) = (C::default(), START);
    let mut passed: Vec<(Micros, u64)> = Vec::new();
    for &(pause, cost) in requests {
        let cost = cost.min(quota.limit());
        now += pause;
        counter.advance(quota, now);
        let remaining = counter.remaining(quota, now);
        prop_assert!(remaining <= quota.limit());
        let wait = counter.wait(quota, now, cost);
        prop_assert_eq!(wait == 0, remaining >= cost, "it fits, or one has to wait");
        prop_assert!(wait <= counter.whole(quota, now), "one need not wait for more than all");
        if wait > 0 {
            // Not a microsecond too early, and not one too late.
            prop_assert!(!ask(&mut counter.clone(), quota, now + wait - 1, cost));
            prop_assert!(ask(&mut counter.clone(), quota, now + wait, cost));
        } else {
            counter.take(quota, now, cost);
            passed.push((now, cost));
        }
        let whole = counter.whole(quota, now);
        let mut later = counter.clone();
        later.advance(quota, now + whole);
        prop_assert_eq!(later.remaining(quota, now + whole), quota.limit());
        prop_assert_eq!(later.whole(quota, now + whole), 0, "it can be forgotten");
    }
    // In no span of time, wherever it begins and ends, more than the bound.
    for (first, &(begin, _)) in passed.iter().enumerate() {
        let mut units = 0;
        for &(end, cost) in &passed[first..] {
            units += cost;
            let bound = algorithm.bound(quota, end - begin + 1);
            prop_assert!(units <= bound, "{units} in {} µs, bound {bound}", end - begin + 1);
        }
    }
    Ok(())
}

/// Pauses from none to several windows, costs from nothing to more than there is.
fn traffic() -> impl Strategy<Value = (Quota, Vec<(Micros, u64)>)> {
    let quota = (1_u32..40, 1_u64..50).prop_filter_map("a quota", |(limit, millis)| {
        Quota::new(limit, Duration::from_millis(millis)).ok()
    });
    quota.prop_flat_map(|quota| {
        let pause = prop_oneof![
            4 => Just(0),
            4 => 0..quota.window() / 8,
            2 => 0..quota.window() * 3,
            1 => Just(quota.window()),
            1 => Just(quota.window() - 1),
        ];
        let cost = prop_oneof![6 => Just(1), 1 => 0..quota.limit() + 3];
        (Just(quota), proptest::collection::vec((pause, cost), 1..250))
    })
}

proptest! {
    #[test]
    fn a_fixed_window_keeps_its_promises((quota, requests) in traffic()) {
        keeps_its_promises::<FixedWindow>(Algorithm::FixedWindow, &quota, &requests)?;
    }

    #[test]
    fn a_sliding_log_keeps_its_promises((quota, requests) in traffic()) {
        keeps_its_promises::<SlidingLog>(Algorithm::SlidingLog, &quota, &requests)?;
    }

    #[test]
    fn a_sliding_window_keeps_its_promises((quota, requests) in traffic()) {
        keeps_its_promises::<SlidingWindow>(Algorithm::SlidingWindow, &quota, &requests)?;
    }

    #[test]
    fn a_token_bucket_keeps_its_promises((quota, requests) in traffic()) {
        keeps_its_promises::<TokenBucket>(Algorithm::TokenBucket, &quota, &requests)?;
    }

    #[test]
    fn gcra_keeps_its_promises((quota, requests) in traffic()) {
        keeps_its_promises::<Gcra>(Algorithm::Gcra, &quota, &requests)?;
    }

    /// With an interval of whole microseconds nothing is rounded, and the two are one algorithm.
    #[test]
    fn gcra_is_the_token_bucket((quota, requests) in traffic()) {
        prop_assume!(quota.window() % quota.limit() == 0);
        let (mut gcra, mut bucket, mut now) = (Gcra::default(), TokenBucket::default(), START);
        for (pause, cost) in requests {
            now += pause;
            let cost = cost.min(quota.limit());
            let both = (ask(&mut gcra, &quota, now, cost), ask(&mut bucket, &quota, now, cost));
            prop_assert_eq!(both.0, both.1);
            prop_assert_eq!(gcra.remaining(&quota, now), bucket.remaining(&quota, now));
            prop_assert_eq!(gcra.whole(&quota, now), bucket.whole(&quota, now));
        }
    }

    /// The definition, written down once more in the simplest way.
    #[test]
    fn a_sliding_log_is_exact((quota, requests) in traffic()) {
        let (mut log, mut now, mut passed) = (SlidingLog::default(), START, Vec::new());
        for (pause, cost) in requests {
            now += pause;
            let cost = cost.min(quota.limit());
            let recent: u64 = passed.iter().filter(|(at, _)| at + quota.window() > now).map(|(_, cost)| cost).sum();
            let passes = ask(&mut log, &quota, now, cost);
            prop_assert_eq!(passes, recent + cost <= quota.limit());
            if passes {
                passed.push((now, cost));
            }
        }
    }
}

fn the_bound_is_reached<C: Counter>(algorithm: Algorithm) {
    // A limit as late as a window allows, and then as much as there is for a whole window.
    let quota = Quota::new(100, Duration::from_secs(1)).unwrap();
    let mut counter = C::default();
    let mut passed = u64::from(ask(&mut counter, &quota, START, 1));
    passed -= 1; // Before the span.
    let late = START + quota.window() - 1;
    for now in late..late + quota.window() {
        while ask(&mut counter, &quota, now, 1) {
            passed += 1;
        }
    }
    let bound = algorithm.bound(&quota, quota.window());
    assert!(passed <= bound && passed + 2 >= bound, "{algorithm:?}: {passed} of {bound}");
}

#[test]
fn no_bound_is_larger_than_it_has_to_be() {
    the_bound_is_reached::<FixedWindow>(Algorithm::FixedWindow);
    the_bound_is_reached::<SlidingLog>(Algorithm::SlidingLog);
    the_bound_is_reached::<SlidingWindow>(Algorithm::SlidingWindow);
    the_bound_is_reached::<TokenBucket>(Algorithm::TokenBucket);
    the_bound_is_reached::<Gcra>(Algorithm::Gcra);
}

fn survives_extremes<C: Counter>() {
    for (limit, window) in [
        (u32::MAX, Duration::from_mins(15)),
        (1, Duration::from_hours(366 * 24)),
        (1, Duration::from_millis(1)),
        (145_000, Duration::from_hours(366 * 24)),
    ] {
        let quota = Quota::new(limit, window).unwrap();
        let mut counter = C::default();
        // Also a clock that goes back, to its very beginning.
        for now in [START, u64::MAX >> 8, START, 0, START] {
            ask(&mut counter, &quota, now, 1);
            counter.advance(&quota, now);
            assert!(counter.remaining(&quota, now) <= quota.limit());
            counter.take(&quota, now, 1);
            counter.whole(&quota, now);
        }
    }
}

#[test]
fn extreme_quotas_and_clocks_that_go_back_overflow_nothing() {
    survives_extremes::<FixedWindow>();
    survives_extremes::<SlidingLog>();
    survives_extremes::<SlidingWindow>();
    survives_extremes::<TokenBucket>();
    survives_extremes::<Gcra>();
}
