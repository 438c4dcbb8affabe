//! Where do histories with a known verdict come from? A register that does one thing at a time, with clients whose calls
//! and returns lie around that moment, makes good ones. A bad one is a good one in which one read was changed, so that no
//! order can explain it.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};

use crate::history::{Action, Operation};

/// How many clients a history has.
const CLIENTS: usize = 5;

/// What a client does at the moment.
#[derive(Clone, Copy)]
enum Doing {
    Nothing,
    /// It has called this operation.
    Called(usize),
    /// The register has done it.
    Done(usize),
}

/// A linearizable history. Each value is written once, and a few writes get no answer.
pub fn good(random: &mut StdRng, operations: usize) -> Vec<Operation> {
    let mut history: Vec<Operation> = Vec::new();
    let mut register: Option<String> = None;
    let mut clients: Vec<(u32, Doing)> =
        (0..).take(CLIENTS).map(|it| (it, Doing::Nothing)).collect();
    let mut next_client = 100;
    for time in 0.. {
        let (number, doing) = &mut clients[random.random_range(0..CLIENTS)];
        let crashes = random.random_bool(0.01);
        match *doing {
            Doing::Nothing if history.len() < operations => {
                let write = random.random_bool(0.4);
                let value = format!("v{}", history.len());
                let action = if write { Action::Write(value) } else { Action::Read(None) };
                let key = "x".to_owned();
                *doing = Doing::Called(history.len());
                history.push(Operation {
                    client: *number,
                    key,
                    action,
                    called: time,
                    returned: None,
                });
            }
            Doing::Nothing => {}
            // Its write may take effect or not; and as a new client it goes on.
            Doing::Called(at) | Doing::Done(at)
                if crashes && matches!(history[at].action, Action::Write(_)) =>
            {
                (*number, *doing) = (next_client, Doing::Nothing);
                next_client += 1;
            }
            Doing::Called(at) => {
                match &mut history[at].action {
                    Action::Write(value) => register = Some(value.clone()),
                    Action::Read(seen) => seen.clone_from(&register),
                    Action::Cas { .. } => {}
                }
                *doing = Doing::Done(at);
            }
            Doing::Done(at) => {
                history[at].returned = Some(time);
                *doing = Doing::Nothing;
            }
        }
        let idle = clients.iter().all(|(_, doing)| matches!(doing, Doing::Nothing));
        if idle && history.len() == operations {
            break;
        }
    }
    history
}

/// What is planted: its name, and how one read of a good history is changed.
type Plant = (&'static str, fn(&[Operation], &Operation) -> Vec<Option<String>>);

/// The values that this read cannot have returned. Each value was written once, so each of them is a violation whatever
/// else the history says.
pub const PLANTS: [Plant; 5] = [
    ("a value that nobody wrote", |_, _| vec![Some("phantom".to_owned())]),
    ("nothing, after a write has ended", |history, read| {
        let after = history.iter().any(|it| value(it).is_some() && it.precedes(read));
        if after { vec![None] } else { Vec::new() }
    }),
    ("a value that is written later", |history, read| {
        let later = history.iter().filter(|write| read.precedes(write));
        later.filter_map(value).map(Some).collect()
    }),
    ("a value that a later write had replaced", |history, read| {
        let replaced = |old: &&Operation| {
            history
                .iter()
                .any(|new| value(new).is_some() && old.precedes(new) && new.precedes(read))
        };
        history.iter().filter(replaced).filter_map(value).map(Some).collect()
    }),
    ("the old value, after another client has read the new one", |history, read| {
        let newer = |old: &&Operation| {
            history.iter().any(|new| {
                value(new).is_some_and(|value| {
                    old.precedes(new)
                        && history.iter().any(|other| {
                            other.precedes(read)
                                && other.action == Action::Read(Some(value.clone()))
                        })
                })
            })
        };
        history.iter().filter(newer).filter_map(value).map(Some).collect()
    }),
];

fn value(operation: &Operation) -> Option<String> {
    match &operation.action {
        Action::Write(value) => Some(value.clone()),
        _ => None,
    }
}

/// Changes one read of a good history. `None` if there is no place for this plant.
pub fn bad(random: &mut StdRng, good: &[Operation], plant: Plant) -> Option<Vec<Operation>> {
    let reads = good.iter().enumerate().filter(|(_, it)| matches!(it.action, Action::Read(_)));
    let places = reads.filter(|(_, it)| it.returned.is_some());
    let choices: Vec<_> = places
        .flat_map(|(place, read)| plant.1(good, read).into_iter().map(move |value| (place, value)))
        .collect();
    let (place, value) = choices.choose(random)?.clone();
    let mut bad = good.to_vec();
    bad[place].action = Action::Read(value);
    Some(bad)
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;

    use super::*;
    use crate::checker::check;

    #[test]
    fn two_hundred_good_histories_pass_and_two_hundred_bad_ones_do_not() {
        let mut random = StdRng::seed_from_u64(1);
        let mut planted = 0;
        for round in 0..200 {
            let good = good(&mut random, 40);
            assert_eq!(check(&good), Ok(()), "{good:#?}");
            let plant = PLANTS[round % PLANTS.len()];
            if let Some(bad) = bad(&mut random, &good, plant) {
                assert!(check(&bad).is_err(), "{}: {bad:#?}", plant.0);
                planted += 1;
            }
        }
        assert!(planted >= 190, "{planted}");
    }
}
