//! Who may begin, who waits, and who is told to come back later?
//!
//! Invariant: at most `in_flight` requests are at work and at most `waiting` wait. A place that becomes free goes to the
//! first in the queue who will still have an answer in time, and nobody keeps a place after its request was dropped.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use clap::ValueEnum;
use serde::Serialize;
use tokio::{sync::oneshot, time::timeout_at};

use crate::error::{Error, Result};
use crate::limit::Limit;

/// Who begins first, of those with one priority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Order {
    /// Who has waited longest: fair, and everybody waits
    Fifo,
    /// Who came last: who is begun is answered soon, and the others run out of time
    Lifo,
    /// Whose deadline is next
    Deadline,
}

/// Whose requests go first. The order of the variants is the order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Somebody wants to buy.
    Checkout,
    /// Somebody looks around.
    Browsing,
}

/// How much is let in.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Requests at work.
    pub in_flight: usize,
    /// Whether fewer are let in as long as the latency says so.
    pub adaptive: bool,
    /// Requests that wait.
    pub waiting: usize,
    /// In which order they begin.
    pub order: Order,
}

/// Where a request stands in the queue: the smallest is first.
type Rank = (Priority, u128, u64);

/// A request in the queue.
#[derive(Debug)]
struct Waiter {
    deadline: Instant,
    turn: oneshot::Sender<Result<Place>>,
}

#[derive(Debug)]
struct State {
    limit: Limit,
    in_flight: usize,
    waiting: BTreeMap<Rank, Waiter>,
    arrived: u64,
    /// How long a request usually keeps its place: a moving average.
    usual: Duration,
    /// How many checkouts and others were refused.
    shed: [u64; 2],
}

/// The door. Nothing in it waits while it holds the lock.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    opened: Instant,
    state: Mutex<State>,
}

/// What the time for which a request kept its place says of the dependency.
#[derive(Clone, Copy, Debug)]
pub enum Teaches {
    /// It was answered: it takes so long.
    Exactly,
    /// Nobody waited for the end: it would have taken so long at least.
    AtLeast,
    /// It may have asked the dependency nothing.
    Nothing,
}

/// The right to be at work. It goes to the next when it is dropped.
#[derive(Debug)]
pub struct Place {
    admission: Arc<Admission>,
    begun: Instant,
    /// What the time until now says. A request that is dropped, because its client has hung up, has no time to say it.
    pub teaches: Teaches,
}

/// A request that waits. When it is dropped, because its time is over or its client has gone, it leaves the queue.
struct Ticket<'a> {
    admission: &'a Admission,
    rank: Rank,
    /// Dropped after `drop`, and with it a place that came too late.
    turn: oneshot::Receiver<Result<Place>>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        self.admission.state().waiting.remove(&self.rank);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.admission.leave(self.begun.elapsed(), self.teaches);
    }
}

impl Admission {
    /// Nobody is in.
    pub fn new(limits: Limits) -> Arc<Self> {
        let state = State {
            limit: Limit::new(limits.in_flight, limits.adaptive),
            in_flight: 0,
            waiting: BTreeMap::new(),
            arrived: 0,
            usual: Duration::ZERO,
            shed: [0; 2],
        };
        Arc::new(Self { limits, opened: Instant::now(), state: Mutex::new(state) })
    }

    /// Lets the request in, now or when it is its turn. An error if it should not wait, or has waited for nothing.
    pub async fn enter(self: &Arc<Self>, priority: Priority, deadline: Instant) -> Result<Place> {
        let place = match self.line_up(priority, deadline) {
            Ok(None) => return Ok(self.place()),
            Ok(Some(mut ticket)) => match timeout_at(deadline.into(), &mut ticket.turn).await {
                Ok(Ok(turn)) => turn,
                // Another request has taken its place in the queue.
                Ok(Err(_)) => Err(Error::BUSY),
                Err(_) => Err(Error::TOO_LATE),
            },
            Err(error) => Err(error),
        };
        place.inspect_err(|_| self.state().shed[priority as usize] += 1)
    }

    // ANCHOR: line_up
    /// Nothing if there is a place. Otherwise a ticket, if the queue has room, or if somebody in it stands behind the new
    /// request: then the last one is sent away in its place. The deadline may have passed while the body was read.
    fn line_up(&self, priority: Priority, deadline: Instant) -> Result<Option<Ticket<'_>>> {
        if deadline <= Instant::now() {
            return Err(Error::TOO_LATE);
        }
        let mut state = self.state();
        if state.in_flight < state.limit.now() {
            state.in_flight += 1;
            return Ok(None);
        }
        state.arrived += 1;
        let by = match self.limits.order {
            Order::Fifo => state.arrived.into(),
            Order::Lifo => u128::MAX - u128::from(state.arrived),
            Order::Deadline => deadline.saturating_duration_since(self.opened).as_nanos(),
        };
        let rank = (priority, by, state.arrived);
        if state.waiting.len() >= self.limits.waiting {
            let last = state.waiting.last_entry().filter(|last| *last.key() > rank);
            // Its sender is dropped, which tells it.
            last.ok_or(Error::BUSY)?.remove();
        }
        let (turn, receiver) = oneshot::channel();
        state.waiting.insert(rank, Waiter { deadline, turn });
        Ok(Some(Ticket { admission: self, rank, turn: receiver }))
    }
    // ANCHOR_END: line_up

    // ANCHOR: leave
    /// A request has left after so long. Free places go to the next requests that can still be answered in time. One that
    /// begins just before its deadline is work for nobody, and makes those behind it late.
    fn leave(self: &Arc<Self>, kept: Duration, teaches: Teaches) {
        let mut state = self.state();
        let at_work = state.in_flight;
        let counts = match teaches {
            Teaches::Exactly => {
                state.limit.learn(kept, at_work);
                true
            }
            Teaches::AtLeast => {
                state.limit.learn_at_least(kept, at_work);
                !state.usual.is_zero() && kept > state.usual
            }
            Teaches::Nothing => false,
        };
        if counts {
            // A single report takes as long as a thousand products. With all of its time, everybody who waits would be late.
            let seen = if state.usual.is_zero() { kept } else { kept.min(8 * state.usual) };
            state.usual = (state.usual * 7 + seen) / 8;
        }
        state.in_flight -= 1;
        let in_time = Instant::now() + 2 * state.usual;
        while state.in_flight < state.limit.now() {
            let Some((_, next)) = state.waiting.pop_first() else { return };
            let turn = if next.deadline > in_time {
                state.in_flight += 1;
                Ok(self.place())
            } else {
                Err(Error::TOO_LATE)
            };
            // A waiter in the queue still has its receiver: `Ticket::drop` removes it from the queue first, under this lock.
            let _ = next.turn.send(turn);
        }
    }
    // ANCHOR_END: leave

    fn place(self: &Arc<Self>) -> Place {
        Place { admission: Arc::clone(self), begun: Instant::now(), teaches: Teaches::AtLeast }
    }

    /// What is let in, and how many were not.
    pub fn pressure(&self) -> Pressure {
        let state = self.state();
        let [checkout, browsing] = state.shed;
        Pressure {
            in_flight: state.in_flight,
            waiting: state.waiting.len(),
            shed: Shed { checkout, browsing },
            limits: At { in_flight: state.limit.now(), waiting: self.limits.waiting },
        }
    }

    /// Nothing panics while it holds the lock, so poison is ignored.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How full the service is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Pressure {
    /// Requests at work.
    pub in_flight: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that were refused since the start.
    pub shed: Shed,
    /// As much as may be.
    pub limits: At,
}

/// Refused requests by priority.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Shed {
    /// Of those who wanted to buy.
    pub checkout: u64,
    /// Of all others.
    pub browsing: u64,
}

/// The limits of now.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct At {
    /// Requests at work.
    pub in_flight: usize,
    /// Requests that wait.
    pub waiting: usize,
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use tokio::task::{JoinHandle, yield_now};

    use super::*;

    const LONG: Duration = Duration::from_mins(1);

    fn door(in_flight: usize, waiting: usize, order: Order) -> Arc<Admission> {
        Admission::new(Limits { in_flight, adaptive: false, waiting, order })
    }

    /// A request that waits, once it stands in the queue or was refused.
    async fn comes(
        door: &Arc<Admission>,
        priority: Priority,
        patience: Duration,
    ) -> JoinHandle<Result<Place>> {
        let door = Arc::clone(door);
        let deadline = Instant::now() + patience;
        let waits = tokio::spawn(async move { door.enter(priority, deadline).await });
        yield_now().await;
        waits
    }

    async fn browses(door: &Arc<Admission>) -> JoinHandle<Result<Place>> {
        comes(door, Priority::Browsing, LONG).await
    }

    /// A request that was answered after so long.
    fn took(mut place: Place, time: Duration) {
        place.begun = Instant::now().checked_sub(time).unwrap();
        place.teaches = Teaches::Exactly;
    }

    /// What a request that is not let in is told.
    fn told(entered: Result<Place>) -> String {
        entered.unwrap_err().to_string()
    }

    /// Whether it is in. The place is kept.
    async fn is_in(waits: &mut JoinHandle<Result<Place>>) -> bool {
        yield_now().await;
        waits.is_finished()
    }

    #[tokio::test]
    async fn as_many_are_in_as_may_be_and_as_many_wait() {
        let door = door(2, 1, Order::Fifo);
        let (one, _two) = (browses(&door).await, browses(&door).await);
        let mut three = browses(&door).await;
        assert!(!is_in(&mut three).await);
        assert!(matches!(browses(&door).await.await.unwrap(), Err(Error::NotNow(_))));
        let seen = door.pressure();
        assert_eq!((seen.in_flight, seen.waiting, seen.shed.browsing), (2, 1, 1));
        drop(one.await.unwrap().unwrap());
        assert!(three.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn who_came_first_begins_first_or_last() {
        for (order, first) in [(Order::Fifo, 0), (Order::Lifo, 2)] {
            let door = door(1, 3, order);
            let at_work = browses(&door).await.await.unwrap().unwrap();
            let mut waiting = Vec::new();
            for _ in 0..3 {
                waiting.push(browses(&door).await);
            }
            drop(at_work);
            yield_now().await;
            let begun = waiting.iter().position(JoinHandle::is_finished);
            assert_eq!(begun, Some(first), "{order:?}");
        }
    }

    #[tokio::test]
    async fn the_next_deadline_begins_first() {
        let door = door(1, 3, Order::Deadline);
        let at_work = browses(&door).await.await.unwrap().unwrap();
        let patient = comes(&door, Priority::Browsing, LONG).await;
        let hurried = comes(&door, Priority::Browsing, LONG / 2).await;
        drop(at_work);
        yield_now().await;
        assert!(hurried.is_finished() && !patient.is_finished());
    }

    #[tokio::test]
    async fn a_checkout_takes_the_place_of_the_last_who_only_looks() {
        for order in [Order::Fifo, Order::Lifo, Order::Deadline] {
            let door = door(1, 2, order);
            let at_work = browses(&door).await.await.unwrap().unwrap();
            let looks = [browses(&door).await, browses(&door).await];
            let buys = comes(&door, Priority::Checkout, LONG).await;
            yield_now().await;
            let sent_away = looks.iter().filter(|it| it.is_finished()).count();
            assert_eq!(sent_away, 1, "{order:?}");
            drop(at_work);
            assert!(buys.await.unwrap().is_ok(), "{order:?}");
            // Nobody who looks takes the place of one who buys.
            let buys = [
                comes(&door, Priority::Checkout, LONG).await,
                comes(&door, Priority::Checkout, LONG).await,
            ];
            assert!(browses(&door).await.await.unwrap().is_err(), "{order:?}");
            drop(buys);
        }
    }

    #[tokio::test]
    async fn who_would_have_no_answer_in_time_is_not_begun() {
        let door = door(1, 3, Order::Fifo);
        let at_work = browses(&door).await.await.unwrap().unwrap();
        // A request usually takes a minute.
        door.state().usual = LONG;
        let late = comes(&door, Priority::Browsing, LONG).await;
        let in_time = comes(&door, Priority::Browsing, 10 * LONG).await;
        drop(at_work);
        assert_eq!(told(late.await.unwrap()), Error::TOO_LATE.to_string());
        assert!(in_time.await.unwrap().is_ok());
    }

    #[tokio::test]
    async fn one_slow_request_makes_nobody_late() {
        let door = door(1, 1, Order::Fifo);
        for _ in 0..20 {
            took(browses(&door).await.await.unwrap().unwrap(), Duration::from_millis(5));
        }
        let report = browses(&door).await.await.unwrap().unwrap();
        let waits = comes(&door, Priority::Browsing, Duration::from_millis(400)).await;
        took(report, Duration::from_secs(4));
        assert!(waits.await.unwrap().is_ok());
    }

    /// A door that has learned that eight may be at work, each for 20 ms.
    async fn learned_up_to_eight() -> Arc<Admission> {
        let limits = Limits { in_flight: 16, adaptive: true, waiting: 0, order: Order::Fifo };
        let door = Admission::new(limits);
        while door.pressure().limits.in_flight < 8 {
            let mut at_work = Vec::new();
            for _ in 0..door.pressure().limits.in_flight {
                at_work.push(browses(&door).await.await.unwrap().unwrap());
            }
            for place in at_work {
                took(place, Duration::from_millis(20));
            }
        }
        door
    }

    #[tokio::test]
    async fn a_hundred_that_teach_nothing_leave_the_limit_as_it_was() {
        let door = learned_up_to_eight().await;
        // Clients that hang up sooner than any answer came teach nothing either.
        let learned = || (door.pressure().limits.in_flight, door.state().usual);
        let before = learned();
        for teaches in [Teaches::Nothing, Teaches::AtLeast].repeat(50) {
            let mut place = browses(&door).await.await.unwrap().unwrap();
            // No time at all, whatever else this machine does meanwhile.
            place.begun = Instant::now() + LONG;
            place.teaches = teaches;
        }
        assert_eq!(learned(), before);
    }

    #[tokio::test]
    async fn requests_that_outlast_their_clients_lower_the_limit() {
        let door = learned_up_to_eight().await;
        let before = door.pressure().limits.in_flight;
        for _ in 0..10 {
            // Dropped as it is when its client hangs up.
            let mut place = browses(&door).await.await.unwrap().unwrap();
            place.begun = Instant::now().checked_sub(Duration::from_millis(400)).unwrap();
        }
        let after = door.pressure().limits.in_flight;
        assert!(after < before, "{after} of {before}");
    }

    #[tokio::test]
    async fn a_deadline_that_passed_before_the_door_is_told() {
        let door = door(1, 1, Order::Fifo);
        let late = door.enter(Priority::Browsing, Instant::now()).await;
        assert_eq!(told(late), Error::TOO_LATE.to_string());
        let seen = door.pressure();
        assert_eq!((seen.in_flight, seen.waiting, seen.shed.browsing), (0, 0, 1));
    }

    #[tokio::test]
    async fn who_waits_until_the_deadline_is_told() {
        let door = door(1, 1, Order::Fifo);
        let _at_work = browses(&door).await.await.unwrap().unwrap();
        let late = comes(&door, Priority::Checkout, Duration::from_millis(5)).await;
        assert!(matches!(late.await.unwrap(), Err(Error::NotNow(_))));
        assert_eq!((door.pressure().waiting, door.pressure().shed.checkout), (0, 1));
    }

    #[tokio::test]
    async fn who_has_gone_keeps_no_place() {
        let door = door(1, 2, Order::Fifo);
        let at_work = browses(&door).await.await.unwrap().unwrap();
        let mut gone = Box::pin(door.enter(Priority::Browsing, Instant::now() + LONG));
        assert!((&mut gone).now_or_never().is_none());
        assert_eq!(door.pressure().waiting, 1);
        drop(gone);
        assert_eq!(door.pressure().waiting, 0);
        // Gone when the place was already on its way.
        let mut gone = Box::pin(door.enter(Priority::Browsing, Instant::now() + LONG));
        assert!((&mut gone).now_or_never().is_none());
        drop(at_work);
        drop(gone);
        assert_eq!((door.pressure().in_flight, door.pressure().waiting), (0, 0));
    }
}
