//! How long does each stage take? A clock for each stage, of which at most one runs.
//!
//! It takes the time as an argument, so that the whole interview can be tested without waiting.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use crate::sheet::Stage;

/// The clocks of all stages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Clock {
    stage: Stage,
    /// Milliseconds that were used before the clock last started.
    used: BTreeMap<Stage, u64>,
    /// Since when the clock of this stage runs.
    #[serde(with = "time::serde::rfc3339::option")]
    since: Option<OffsetDateTime>,
}

impl Clock {
    /// Starts the clock of this stage.
    pub fn start(stage: Stage, now: OffsetDateTime) -> Self {
        Self { stage, used: BTreeMap::new(), since: Some(now) }
    }

    /// Goes on with this stage: its clock runs, and the other stops.
    pub fn enter(&mut self, stage: Stage, now: OffsetDateTime) {
        self.pause(now);
        self.stage = stage;
        self.since = Some(now);
    }

    /// Stops.
    pub fn pause(&mut self, now: OffsetDateTime) {
        let run = self.running(now);
        *self.used.entry(self.stage).or_default() += run;
        self.since = None;
    }

    /// Goes on with the same stage.
    pub fn resume(&mut self, now: OffsetDateTime) {
        self.since.get_or_insert(now);
    }

    /// Whether no clock runs.
    pub fn is_paused(&self) -> bool {
        self.since.is_none()
    }

    /// How long a stage has taken.
    pub fn used(&self, stage: Stage, now: OffsetDateTime) -> Duration {
        let running = if stage == self.stage { self.running(now) } else { 0 };
        Duration::from_millis(self.used.get(&stage).copied().unwrap_or_default() + running)
    }

    /// How long all stages have taken.
    pub fn total(&self, now: OffsetDateTime) -> Duration {
        Stage::ALL.into_iter().map(|stage| self.used(stage, now)).sum()
    }

    /// Milliseconds since the clock was started. If the system's clock was set back meanwhile, zero.
    fn running(&self, now: OffsetDateTime) -> u64 {
        let run = self.since.map(|since| (now - since).whole_milliseconds());
        run.and_then(|run| u64::try_from(run).ok()).unwrap_or_default()
    }
}

/// `4:07`, or `-1:30` when the time is over by that much.
pub fn left(used: Duration, minutes: u64) -> String {
    let (all, used) = (60 * minutes, used.as_secs());
    let (sign, left) = if used > all { ("-", used - all) } else { ("", all - used) };
    format!("{sign}{}:{:02}", left / 60, left % 60)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::seconds(second)
    }

    #[test]
    fn a_pause_does_not_count() {
        let mut clock = Clock::start(Stage::Clarify, at(0));
        clock.pause(at(10));
        assert!(clock.is_paused());
        clock.resume(at(100));
        clock.resume(at(105));
        clock.enter(Stage::Design, at(110));
        assert_eq!(clock.used(Stage::Clarify, at(200)).as_secs(), 20);
        assert_eq!(clock.used(Stage::Design, at(200)).as_secs(), 90);
        assert_eq!(clock.total(at(200)).as_secs(), 110);
    }

    #[test]
    fn a_clock_that_is_set_back_takes_nothing_away() {
        let mut clock = Clock::start(Stage::Clarify, at(100));
        clock.pause(at(50));
        assert_eq!(clock.total(at(60)).as_secs(), 0);
    }

    #[test]
    fn the_time_left_is_shown_also_when_it_is_over() {
        let left = |used| left(Duration::from_secs(used), 5);
        assert_eq!((&*left(0), &*left(53), &*left(390)), ("5:00", "4:07", "-1:30"));
    }

    proptest! {
        /// Whatever the reader does, the stages together take the time that no pause took.
        #[test]
        fn the_stages_share_the_time_that_was_not_paused(
            moves in proptest::collection::vec((0_u8..3, 0_usize..6, 0_i64..1_000), 0..40),
        ) {
            let (mut clock, mut now) = (Clock::start(Stage::Clarify, at(0)), 0);
            let (mut expected, mut runs) = (0, true);
            for (what, stage, later) in moves {
                now += later;
                expected += if runs { later } else { 0 };
                match what {
                    0 => { clock.pause(at(now)); runs = false; }
                    1 => { clock.resume(at(now)); runs = true; }
                    _ => { clock.enter(Stage::ALL[stage], at(now)); runs = true; }
                }
                prop_assert_eq!(clock.total(at(now)).as_secs(), u64::try_from(expected).unwrap());
                prop_assert_eq!(clock.is_paused(), !runs);
            }
        }
    }
}
