//! Does the query work, or does it wait? Its session is looked at while it runs, since no plan tells what it waited for.

use std::time::Duration;

use serde::Serialize;

/// How often the session is looked at.
pub const PAUSE: Duration = Duration::from_millis(20);

/// What was seen of a session: once every [`PAUSE`].
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Waits {
    /// How often it was looked at.
    pub looks: u32,
    /// How often it waited for a lock.
    pub waiting: u32,
    /// Who held the lock, when it was seen first: in the end it is busy with giving the lock away.
    pub blocker: Option<Blocker>,
}

/// The session that holds the lock.
#[derive(Clone, Debug, PartialEq, Serialize, sqlx::FromRow)]
pub struct Blocker {
    /// Its process. `pg_terminate_backend` ends it.
    pub pid: i32,
    /// `idle in transaction`: its program does something else, and keeps the lock.
    pub state: Option<String>,
    /// How old its transaction is.
    pub seconds: Option<f64>,
}

impl Waits {
    /// Notes a look: who blocks the session, if it waits.
    pub fn note(&mut self, blocker: Option<Blocker>) {
        self.looks += 1;
        if let Some(blocker) = blocker {
            self.waiting += 1;
            self.blocker.get_or_insert(blocker);
        }
    }

    // ANCHOR: mostly
    /// Whether it waited most of the time. One look may be chance.
    pub fn mostly(&self) -> bool {
        self.waiting >= 2 && self.waiting * 2 > self.looks
    }
    // ANCHOR_END: mostly
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_waits_if_most_looks_say_so() {
        let blocker = Blocker { pid: 7, state: None, seconds: None };
        let mut waits = Waits::default();
        assert!(!waits.mostly());
        waits.note(Some(blocker.clone()));
        assert!(!waits.mostly());
        waits.note(Some(blocker));
        assert!(waits.mostly());
        waits.note(None);
        assert!(waits.mostly());
        waits.note(None);
        assert!(!waits.mostly());
    }
}
