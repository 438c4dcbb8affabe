//! A thousand readers in this process miss one key at once. Who asks the database?
//!
//! The first one. The others wait until it has finished, and then *look into Redis again*. Handing them the first one's
//! result would save a look, but it would be wrong: a reader that came after an update was answered could get what was
//! read before the update.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::watch;

use crate::user::UserId;

/// The loads that are under way.
#[derive(Debug, Default)]
pub struct Flights {
    /// Nothing is ever sent. Followers learn of the end when the sender is dropped.
    under_way: Mutex<HashMap<UserId, watch::Receiver<()>>>,
}

/// What a reader has to do.
#[derive(Debug)]
pub enum Turn {
    /// Load the user, and drop this when the load has ended, well or not.
    Lead(Landing),
    /// Wait for this to end.
    Follow(watch::Receiver<()>),
}

/// The load is under way until this is dropped.
#[derive(Debug)]
pub struct Landing {
    flights: Arc<Flights>,
    id: UserId,
    _end: watch::Sender<()>,
}

// ANCHOR: flight
impl Flights {
    // ANCHOR: board
    /// Lets one at a time load a user.
    pub fn board(self: &Arc<Self>, id: UserId) -> Turn {
        // A panic cannot leave the map half changed, so poison is ignored.
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        match under_way.entry(id) {
            Entry::Occupied(flight) => Turn::Follow(flight.get().clone()),
            Entry::Vacant(place) => {
                let (end, ended) = watch::channel(());
                place.insert(ended);
                Turn::Lead(Landing { flights: Arc::clone(self), id, _end: end })
            }
        }
    }
    // ANCHOR_END: board
}

impl Drop for Landing {
    fn drop(&mut self) {
        let mut under_way = self.flights.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(&self.id);
    }
}
// ANCHOR_END: flight

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn one_leads_the_others_wait_for_its_end_and_the_next_leads_again() {
        let flights = Arc::new(Flights::default());
        let (one, two) = (UserId::parse("1").unwrap(), UserId::parse("2").unwrap());
        let Turn::Lead(landing) = flights.board(one) else { panic!("the first should lead") };
        let Turn::Follow(mut end) = flights.board(one) else { panic!("the second should wait") };
        let Turn::Follow(third) = flights.board(one) else { panic!("the third should wait") };
        assert!(third.has_changed().is_ok(), "the third waits for the same end");
        assert!(matches!(flights.board(two), Turn::Lead(_)), "another key is not held up");
        let waiting = tokio::spawn(async move { end.changed().await.is_err() });
        drop(landing);
        assert!(waiting.await.unwrap(), "the end is told by closing");
        assert!(matches!(flights.board(one), Turn::Lead(_)));
        assert!(flights.under_way.lock().unwrap().is_empty());
    }
}
