//! Can a hit do without the round trip to Redis?
//!
//! With a copy in the process: Redis remembers what this connection has read, and tells it when such a key changes
//! (`CLIENT TRACKING`, RESP3). The message arrives a moment after the change was answered, so a near cache weakens the
//! promise. A read may be old for as long as the message is on its way, and for a trust period at most: a confirmation
//! comes over the same connection, behind all messages, and without a confirmation nothing is believed. So it is off by
//! default.
//!
//! Invariant: an entry never outlives its connection, and is never older than an invalidation that has arrived.
//!
//! The `redis` crate has such a cache too (`cache-aio`). It puts a value in when the caller gets it, and an invalidation
//! that arrives just before that is lost.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redis::{FromRedisValue, PushInfo, PushKind, Value as Reply};

use crate::{user::UserId, value::Value};

/// The users that this process has read over one connection.
#[derive(Debug)]
pub struct Near {
    entries: Mutex<Entries>,
    /// The most users. When there are this many, all are forgotten; the hot ones are back after one read each.
    most: usize,
}

#[derive(Debug, Default)]
struct Entries {
    users: HashMap<UserId, Entry>,
    questions: Question,
}

#[derive(Debug)]
enum Entry {
    /// Redis has been asked. If an invalidation comes before the answer is put in, it removes this entry.
    Asked(Question),
    Known(Value),
}

/// Which question to Redis an answer belongs to.
type Question = u64;

// ANCHOR: near
impl Near {
    /// An empty one.
    pub fn new(most: usize) -> Self {
        Self { entries: Mutex::default(), most }
    }

    /// The value, if it is here, or else the question with which to [`put`](Self::put) what Redis says.
    pub fn get(&self, id: UserId, now: u64) -> Result<Value, Question> {
        let mut entries = self.lock();
        match entries.users.get(&id) {
            Some(Entry::Known(value)) if value.expires_at > now => return Ok(value.clone()),
            // A question is open already. Redis is asked again after it was noted, so either answer may be put in.
            Some(Entry::Asked(question)) => return Err(*question),
            _ => {}
        }
        if entries.users.len() >= self.most {
            entries.users.clear();
        }
        entries.questions += 1;
        let question = entries.questions;
        entries.users.insert(id, Entry::Asked(question));
        Err(question)
    }

    /// Keeps what Redis has answered, unless it was invalidated since the question.
    pub fn put(&self, id: UserId, question: Question, value: Option<&Value>) {
        let mut entries = self.lock();
        if matches!(entries.users.get(&id), Some(Entry::Asked(asked)) if *asked == question) {
            match value {
                Some(value) => entries.users.insert(id, Entry::Known(value.clone())),
                None => entries.users.remove(&id),
            };
        }
    }

    /// Forgets these users.
    pub fn forget(&self, ids: impl Iterator<Item = UserId>) {
        let mut entries = self.lock();
        for id in ids {
            entries.users.remove(&id);
        }
    }

    /// Handles what Redis says without being asked. It is called for one message after another, in the order of the
    /// connection.
    pub fn hear(&self, push: &PushInfo) -> Result<(), Infallible> {
        match (&push.kind, push.data.first()) {
            (PushKind::Invalidate, Some(Reply::Array(keys))) => {
                let keys = keys.iter().filter_map(|key| String::from_redis_value_ref(key).ok());
                self.forget(keys.filter_map(|key| UserId::parse(key.rsplit(':').next()?)));
            }
            // All keys are gone, or the connection is.
            (PushKind::Invalidate | PushKind::Disconnection, _) => self.lock().users.clear(),
            _ => {}
        }
        Ok(())
    }

    /// A panic cannot leave the map half changed, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
// ANCHOR_END: near

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn id(id: &str) -> UserId {
        UserId::parse(id).unwrap()
    }

    fn value(token: &str) -> Value {
        let load_time = Duration::ZERO;
        Value { token: token.to_owned(), user: None, expires_at: 10, load_time }
    }

    fn invalidate(key: &str) -> PushInfo {
        let keys = Reply::Array(vec![Reply::BulkString(key.as_bytes().to_vec())]);
        PushInfo { kind: PushKind::Invalidate, data: vec![keys] }
    }

    #[test]
    fn what_redis_said_is_kept_until_it_expires() {
        let near = Near::new(10);
        let question = near.get(id("1"), 0).unwrap_err();
        near.put(id("1"), question, Some(&value("a")));
        assert_eq!(near.get(id("1"), 9).unwrap(), value("a"));
        assert!(near.get(id("1"), 10).is_err());
    }

    #[test]
    fn an_answer_that_was_invalidated_on_its_way_is_not_kept() {
        let near = Near::new(10);
        let question = near.get(id("1"), 0).unwrap_err();
        near.hear(&invalidate("user:1")).unwrap();
        near.put(id("1"), question, Some(&value("old")));
        // Nor is it taken for the answer to the next question.
        let next = near.get(id("1"), 0).unwrap_err();
        near.put(id("1"), question, Some(&value("old")));
        assert_eq!(near.get(id("1"), 0), Err(next));
        near.put(id("1"), next, Some(&value("new")));
        assert_eq!(near.get(id("1"), 0).unwrap(), value("new"));
    }

    #[test]
    fn with_its_connection_all_of_it_goes() {
        for push in [
            PushInfo { kind: PushKind::Disconnection, data: vec![] },
            PushInfo { kind: PushKind::Invalidate, data: vec![Reply::Nil] },
            invalidate("user:1"),
        ] {
            let near = Near::new(10);
            let question = near.get(id("1"), 0).unwrap_err();
            near.put(id("1"), question, Some(&value("a")));
            near.hear(&push).unwrap();
            assert!(near.get(id("1"), 0).is_err());
        }
    }

    #[test]
    fn it_never_holds_more_users_than_it_may() {
        let near = Near::new(10);
        for n in 1..=100 {
            let id = id(&n.to_string());
            let question = near.get(id, 0).unwrap_err();
            near.put(id, question, Some(&value("a")));
            assert!(near.lock().users.len() <= 10);
        }
    }
}
