//! What is weak, or long ago? FSRS, a scheduler for spaced repetition, computes it from what the reader did and when.
//!
//! We keep only what the reader did, and compute the rest each time: a better scheduler needs no new file.

use chrono::DateTime;
use rs_fsrs::{Card, FSRS, Parameters, Rating};
use time::OffsetDateTime;

use crate::{outcome::Outcome, sheet::Level};

/// One look at something: when, and how well it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// When.
    pub at: OffsetDateTime,
    /// How well.
    pub went: Went,
}

/// How well it went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Went {
    /// Not at all.
    Badly,
    /// With gaps.
    Hardly,
    /// Well.
    Well,
    /// Without an effort.
    Easily,
}

/// What is known about something that was seen at least once.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Memory {
    /// When it should be seen again.
    pub due: OffsetDateTime,
    /// How likely the reader still knows it: 1 for certain.
    pub recall: f64,
}

impl Memory {
    /// Computed from all looks; nothing if there was none.
    pub fn of(looks: impl IntoIterator<Item = Look>, now: OffsetDateTime) -> Option<Self> {
        let mut looks: Vec<_> = looks.into_iter().collect();
        looks.sort_by_key(|look| look.at);
        let first = looks.first()?.at;
        // In days only: the short-term steps of the default would ask again what went well ten minutes ago.
        let parameters = Parameters { enable_short_term: false, ..Parameters::default() };
        let scheduler = FSRS::new(parameters);
        let mut card = Card { due: chrono(first), last_review: chrono(first), ..Card::new() };
        for Look { at, went } in looks {
            let rating = match went {
                Went::Badly => Rating::Again,
                Went::Hardly => Rating::Hard,
                Went::Well => Rating::Good,
                Went::Easily => Rating::Easy,
            };
            card = scheduler.next(card, chrono(at), rating).card;
        }
        let due = OffsetDateTime::from_unix_timestamp(card.due.timestamp()).unwrap_or(now);
        Some(Self { due, recall: card.get_retrievability(chrono(now)) })
    }

    /// Whether it should be seen again on this day, at whatever hour.
    pub fn is_due(self, now: OffsetDateTime) -> bool {
        self.due.to_offset(now.offset()).date() <= now.date()
    }
}

/// The look that an interview was.
pub fn look(outcome: &Outcome) -> Look {
    let went = match outcome.level {
        None => Went::Badly,
        Some(Level::Junior) => Went::Hardly,
        Some(Level::Mid) => Went::Well,
        Some(Level::Senior) => Went::Easily,
    };
    Look { at: outcome.ended, went }
}

/// The place in a queue, the lower the sooner: first what is due, the weakest before all; then what is new; then the
/// rest, the weakest first.
pub fn rank(memory: Option<Memory>, now: OffsetDateTime) -> (u8, u64) {
    // A probability as a whole number, so that it can be ordered.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1")]
    let recall = |memory: Memory| (memory.recall.clamp(0.0, 1.0) * 1e9) as u64;
    match memory {
        Some(memory) if memory.is_due(now) => (0, recall(memory)),
        None => (1, 0),
        Some(memory) => (2, recall(memory)),
    }
}

fn chrono(at: OffsetDateTime) -> DateTime<chrono::Utc> {
    DateTime::from_timestamp(at.unix_timestamp(), at.nanosecond()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(day: i64) -> OffsetDateTime {
        OffsetDateTime::UNIX_EPOCH + time::Duration::days(20_000 + day)
    }

    fn memory(looks: &[(i64, Went)], today: i64) -> Memory {
        let looks = looks.iter().map(|(day, went)| Look { at: at(*day), went: *went });
        Memory::of(looks, at(today)).unwrap()
    }

    #[test]
    fn what_went_badly_is_due_before_what_went_well() {
        let (bad, good) = (memory(&[(0, Went::Badly)], 1), memory(&[(0, Went::Easily)], 1));
        assert!(bad.due < good.due, "{bad:?} {good:?}");
        assert!(bad.is_due(at(1)) && !good.is_due(at(1)));
    }

    #[test]
    fn what_went_well_once_does_not_come_back_on_the_next_day_and_what_went_badly_does() {
        let (good, bad) = (memory(&[(0, Went::Well)], 0), memory(&[(0, Went::Badly)], 0));
        assert!(!good.is_due(at(0)) && !good.is_due(at(1)), "{good:?}");
        assert!(!bad.is_due(at(0) + time::Duration::minutes(20)), "{bad:?}");
        assert!(bad.is_due(at(1)), "{bad:?}");
        let earlier_in_the_day = at(1) - time::Duration::hours(3);
        let evening = Look { at: at(0) + time::Duration::hours(20), went: Went::Badly };
        let evening = Memory::of([evening], at(1)).unwrap();
        assert!(evening.is_due(at(1) + time::Duration::hours(1)), "judged late, due early");
        assert!(!evening.is_due(earlier_in_the_day));
    }

    #[test]
    fn what_is_longer_ago_is_known_less() {
        let looks = [(0, Went::Well), (2, Went::Well)];
        let (soon, late) = (memory(&looks, 3), memory(&looks, 60));
        assert!(soon.recall > late.recall, "{soon:?} {late:?}");
        assert!(late.is_due(at(60)));
    }

    #[test]
    fn the_order_in_which_looks_are_given_does_not_matter() {
        let looks = [(0, Went::Badly), (3, Went::Well), (9, Went::Well)];
        let mut turned = looks;
        turned.reverse();
        assert_eq!(memory(&looks, 20), memory(&turned, 20));
    }

    #[test]
    fn what_is_due_comes_first_then_what_is_new_then_the_rest() {
        let due = Some(memory(&[(0, Went::Badly)], 5));
        let fresh = Some(memory(&[(0, Went::Easily)], 1));
        let (due, new, rest) = (rank(due, at(5)), rank(None, at(5)), rank(fresh, at(1)));
        assert!(due < new && new < rest, "{due:?} {new:?} {rest:?}");
        assert_eq!(Memory::of([], at(0)), None);
    }
}
