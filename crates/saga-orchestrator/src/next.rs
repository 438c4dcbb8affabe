//! What is to be done next? It follows from the log, and from nothing else: not even from the time.
//!
//! Invariant: after the pivot is done the saga only goes forward; before it, what was *or may have been* done is
//! undone in reverse, and the saga ends only when nothing is left to do.

use crate::{
    log::{Log, Outcome},
    saga::{Call, Kind, Record, STEPS},
};

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// Make this call; if it has not been asked for yet, write so first.
    Ask(Call),
    /// Write this, and see what follows.
    Write(Record),
    /// Nothing: it has ended, or is parked.
    Rest,
}

impl Log {
    // ANCHOR: next
    /// What to do next. A call that failed `enough` times is given up or parked. Failures are counted, and no clock is
    /// asked: time in which no orchestrator lived, and nobody tried, must not use up anybody's patience.
    pub fn next(&self, enough: u32) -> Next {
        if self.ended.is_some() || self.parked.is_some() {
            return Next::Rest;
        }
        if let Some(damage) = &self.damage {
            return Next::Write(Record::Parked { reason: damage.clone() });
        }
        let failed = |call| self.of(call).failures >= enough;
        if self.compensates() {
            for step in STEPS.iter().rev().filter(|step| self.may_have_been_done(step.action)) {
                let Some(undo) = step.compensation else { continue };
                match self.of(undo).outcome {
                    Some(Outcome::Done) => {}
                    None if !failed(undo) => return Next::Ask(undo),
                    // Refused, or tried often enough: there is nothing to fall back on but a human.
                    _ => return self.park(undo),
                }
            }
            return Next::Write(Record::Cancelled);
        }
        for step in STEPS {
            let call = step.action;
            match self.of(call).outcome {
                Some(Outcome::Done) => {}
                None if !failed(call) => return Next::Ask(call),
                None if step.kind != Kind::Retriable => {
                    return Next::Write(Record::GaveUp { call });
                }
                // After the pivot there is no way but forward.
                _ => return self.park(call),
            }
        }
        Next::Write(Record::Confirmed)
    }
    // ANCHOR_END: next

    // ANCHOR: undo
    /// A refusal is certain only if every answer was heard: an attempt before it may have been carried out.
    pub(crate) fn may_have_been_done(&self, call: Call) -> bool {
        let progress = self.of(call);
        match progress.outcome {
            Some(Outcome::Done) => true,
            Some(Outcome::Refused | Outcome::GaveUp) => progress.outcome_unknown,
            None => false,
        }
    }
    // ANCHOR_END: undo

    fn park(&self, call: Call) -> Next {
        let error = self.of(call).last_error.as_deref().unwrap_or("no answer");
        Next::Write(Record::Parked { reason: format!("{call}: {error}") })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use time::OffsetDateTime;

    use super::*;
    use crate::log::Status;

    /// One failure is enough to give a call up, or to park the order.
    const ENOUGH: u32 = 1;
    const START: OffsetDateTime = OffsetDateTime::UNIX_EPOCH;

    /// The log of a new order.
    fn new() -> Log {
        after(&[Log::FIRST])
    }

    fn after(records: &[Record]) -> Log {
        let mut log = Log::default();
        for record in records {
            log.push(record, START);
        }
        log
    }

    fn asked(call: Call) -> Record {
        Record::Asked { call }
    }

    fn done(call: Call) -> Record {
        Record::Done { call }
    }

    fn failed(call: Call, outcome_unknown: bool) -> Record {
        Record::Failed { call, outcome_unknown, reason: "why".to_owned() }
    }

    #[test]
    fn the_steps_follow_in_their_order() {
        let mut log = new();
        for (call, next) in [
            (Call::Reserve, Next::Ask(Call::Charge)),
            (Call::Charge, Next::Ask(Call::Book)),
            (Call::Book, Next::Ask(Call::Sell)),
            (Call::Sell, Next::Write(Record::Confirmed)),
        ] {
            assert_eq!(log.next(ENOUGH), Next::Ask(call));
            if !log.asked.contains(&call) {
                log.push(&asked(call), START);
            }
            log.push(&done(call), START);
            assert_eq!(log.next(ENOUGH), next);
        }
        log.push(&Record::Confirmed, START);
        assert_eq!((log.next(ENOUGH), log.status()), (Next::Rest, Status::Confirmed));
    }

    #[test]
    fn what_may_have_been_done_is_undone_and_what_cannot_have_been_is_not() {
        let reserved = [asked(Call::Reserve), done(Call::Reserve), asked(Call::Charge)];
        for (trouble, undo) in [
            (vec![failed(Call::Charge, true)], Call::Refund),
            (vec![Record::TakenOver, failed(Call::Charge, false)], Call::Refund),
            // That nobody listens now says nothing of what was sent before.
            (vec![failed(Call::Charge, true), failed(Call::Charge, false)], Call::Refund),
            (vec![failed(Call::Charge, false)], Call::Release),
        ] {
            let mut log = after(&[&reserved[..], &trouble].concat());
            let gave_up = Record::GaveUp { call: Call::Charge };
            assert_eq!(log.next(ENOUGH), Next::Write(gave_up.clone()));
            log.push(&gave_up, START);
            assert_eq!(log.next(ENOUGH), Next::Ask(undo), "{trouble:?}");
            assert_eq!(log.status(), Status::Cancelling);
        }
    }

    #[test]
    fn a_lease_that_is_too_short_gives_nothing_up() {
        let mut log = new();
        for _ in 0..50 {
            log.push(&Record::TakenOver, START);
        }
        assert_eq!(log.next(ENOUGH), Next::Ask(Call::Reserve));
    }

    #[test]
    fn a_refusal_after_a_lost_answer_undoes_what_was_refused() {
        let refused = Record::Refused { call: Call::Charge, reason: "no".to_owned() };
        let before = [asked(Call::Reserve), done(Call::Reserve), asked(Call::Charge)];
        let heard = after(&[&before[..], std::slice::from_ref(&refused)].concat());
        assert_eq!(heard.next(ENOUGH), Next::Ask(Call::Release));
        let lost = after(&[&before[..], &[failed(Call::Charge, true), refused]].concat());
        assert_eq!(lost.next(ENOUGH), Next::Ask(Call::Refund));
    }

    #[test]
    fn compensations_follow_in_reverse_and_one_that_fails_parks_the_order() {
        let mut log = new();
        log.push(&done(Call::Reserve), START);
        for record in [asked(Call::Charge), done(Call::Charge), asked(Call::Book)] {
            log.push(&record, START);
        }
        log.push(&Record::Refused { call: Call::Book, reason: "no".to_owned() }, START);
        for undo in [Call::Refund, Call::Release] {
            assert_eq!(log.next(ENOUGH), Next::Ask(undo));
            log.push(&asked(undo), START);
            let mut broken = log.clone();
            broken.push(&failed(undo, false), START);
            let parked = broken.next(ENOUGH);
            assert!(matches!(parked, Next::Write(Record::Parked { .. })), "{parked:?}");
            log.push(&done(undo), START);
        }
        assert_eq!(log.next(ENOUGH), Next::Write(Record::Cancelled));
    }

    #[test]
    fn after_the_pivot_a_failure_is_parked_and_never_undone() {
        let steps = [Call::Reserve, Call::Charge, Call::Book];
        let mut records: Vec<_> =
            steps.iter().flat_map(|&call| [asked(call), done(call)]).collect();
        records.extend([asked(Call::Sell), failed(Call::Sell, true)]);
        let log = after(&records);
        let Next::Write(parked @ Record::Parked { .. }) = log.next(ENOUGH) else {
            panic!("{:?}", log.next(ENOUGH));
        };
        records.extend([parked, Record::Resumed]);
        assert_eq!(after(&records).next(ENOUGH), Next::Ask(Call::Sell));
    }

    #[test]
    fn each_call_is_tried_often_enough_and_again_as_often_after_a_human_resumed_it() {
        let mut log = after(&[asked(Call::Reserve), done(Call::Reserve), asked(Call::Charge)]);
        log.push(&Record::Refused { call: Call::Charge, reason: "no".to_owned() }, START);
        log.push(&asked(Call::Release), START);
        for _ in 0..2 {
            for _ in 0..5 {
                assert_eq!(log.next(5), Next::Ask(Call::Release));
                log.push(&failed(Call::Release, true), START);
            }
            let Next::Write(parked @ Record::Parked { .. }) = log.next(5) else { panic!() };
            log.push(&parked, START);
            log.push(&Record::Resumed, START);
        }
    }

    #[test]
    fn a_cancelled_order_whose_charge_still_stands_is_parked() {
        let refused = Record::Refused { call: Call::Book, reason: "no".to_owned() };
        let steps = [Call::Reserve, Call::Charge].map(|call| [asked(call), done(call)]);
        let records = [steps.concat(), vec![asked(Call::Book), refused]].concat();
        let Next::Write(Record::Parked { reason }) =
            after(&[records, vec![Record::Cancelled]].concat()).next(ENOUGH)
        else {
            panic!("the money would be lost");
        };
        assert!(reason.starts_with("record 7 of the log"), "{reason}");
    }

    #[test]
    fn a_log_that_no_code_of_ours_wrote_is_parked() {
        for odd in [
            json!({ "kind": "teleported" }),
            json!({ "kind": "done", "call": "charge" }),
            json!({ "kind": "resumed" }),
            json!({ "kind": "confirmed" }),
            json!({ "kind": "cancelled" }),
            json!(null),
        ] {
            let first = json!({ "kind": "asked", "call": "reserve" });
            let log = Log::read([(first, START), (odd, START)]);
            let Next::Write(Record::Parked { reason }) = log.next(ENOUGH) else { panic!() };
            assert!(reason.starts_with("record 2 of the log"), "{reason}");
        }
    }

    /// What can become of one attempt at a call.
    #[derive(Clone, Copy, Debug)]
    enum Fate {
        Done,
        Refused,
        /// Down: it never arrived.
        Down,
        /// It was done, and the answer was lost; or it was lost itself.
        Lost {
            done: bool,
        },
        /// The orchestrator dies, and its call was done or not.
        Killed {
            done: bool,
        },
        /// It is done, and the answer lost, when everything is over.
        Late,
    }

    fn fate() -> impl Strategy<Value = Fate> {
        prop_oneof![
            4 => Just(Fate::Done),
            1 => Just(Fate::Refused),
            1 => Just(Fate::Down),
            2 => any::<bool>().prop_map(|done| Fate::Lost { done }),
            2 => any::<bool>().prop_map(|done| Fate::Killed { done }),
            1 => Just(Fate::Late),
        ]
    }

    /// The participants: what is done stays done, what was undone first is never done, and a refusal is remembered.
    #[derive(Default)]
    struct Participants {
        done: Vec<Call>,
        undone: Vec<Call>,
        refused: Vec<Call>,
    }

    impl Participants {
        fn ask(&mut self, call: Call) -> Record {
            match STEPS.iter().find(|step| step.compensation == Some(call)) {
                Some(step) => self.undone.push(step.action),
                None if self.refused.contains(&call) || self.undone.contains(&call) => {
                    return Record::Refused { call, reason: "no".to_owned() };
                }
                None => self.done.push(call),
            }
            Record::Done { call }
        }

        fn stands(&self, call: Call) -> bool {
            self.done.contains(&call) && !self.undone.contains(&call)
        }
    }

    proptest! {
        /// The whole of the orchestrator without any I/O, under everything that can happen to a call.
        #[test]
        fn whatever_happens_all_is_done_or_nothing_is_left(
            fates in prop::collection::vec(fate(), 0..60),
            enough in 1_u32..4,
        ) {
            let (mut log, mut world) = (new(), Participants::default());
            let (mut fates, mut late) = (fates.into_iter(), Vec::new());
            loop {
                let call = match log.next(enough) {
                    Next::Rest if log.status() == Status::Stuck => {
                        log.push(&Record::Resumed, START);
                        continue;
                    }
                    Next::Rest => break,
                    Next::Write(record) => {
                        log.push(&record, START);
                        continue;
                    }
                    Next::Ask(call) => call,
                };
                if !log.asked.contains(&call) {
                    log.push(&asked(call), START);
                }
                let fate = fates.next().unwrap_or(Fate::Done);
                let may_refuse = call.step().is_some_and(|step| step.kind != Kind::Retriable)
                    && !world.done.contains(&call);
                let record = match fate {
                    Fate::Refused if may_refuse => {
                        world.refused.push(call);
                        world.ask(call)
                    }
                    Fate::Refused | Fate::Done => world.ask(call),
                    Fate::Down => failed(call, false),
                    Fate::Lost { done } | Fate::Killed { done } => {
                        if done {
                            world.ask(call);
                        }
                        if matches!(fate, Fate::Lost { .. }) { failed(call, true) } else { Record::TakenOver }
                    }
                    Fate::Late => {
                        late.push(call);
                        failed(call, true)
                    }
                };
                log.push(&record, START);
            }
            // Messages that the network held back. A call that is repeated is known by its key.
            for call in late {
                world.ask(call);
            }
            prop_assert_eq!(&log.damage, &None);
            let stands = STEPS.map(|step| world.stands(step.action));
            match log.status() {
                Status::Confirmed => prop_assert_eq!(stands, [true; 4]),
                Status::Cancelled => prop_assert_eq!(stands, [false; 4]),
                status => prop_assert!(false, "{:?}", status),
            }
        }
    }
}
