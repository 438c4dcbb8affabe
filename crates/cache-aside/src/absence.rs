//! Somebody asks for an id that nobody has, again and again. Who answers?
//!
//! A cache of what exists never answers this: each such request is a miss, and the database pays. So the news
//! that there is nobody is cached too, for a short time: it takes up room, and an attacker can make as much
//! of it as there are numbers. Whoever makes a user deletes the absence of that user, as with any change.

use std::time::Duration;

use crate::ttl::Ttl;

// ANCHOR: absence
/// How long to keep what was loaded.
#[derive(Clone, Copy, Debug)]
pub struct Lives {
    /// A user.
    pub user: Ttl,
    /// The news that there is none.
    pub absence: Ttl,
}

impl Lives {
    /// A life for a user or for the lack of one, if it is to be kept at all.
    pub fn draw(&self, is_user: bool) -> Option<Duration> {
        let ttl = if is_user { self.user } else { self.absence };
        (!ttl.longest.is_zero()).then(|| ttl.draw())
    }
}
// ANCHOR_END: absence

#[cfg(test)]
mod tests {
    use super::*;

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
}
