//! What lies in Redis under a user's key, and what does a reader get?
//!
//! A user, or its absence (nobody has the id), or a *lease*: the right to fill the key. The first line says which, so
//! that `redis-cli get …:user:1` can be read:
//!
//! ```text
//! <token> 2 user <expires_at> <load_time> <version>⏎{"id":1,"name":…}⏎    a user
//! <token> 2 user <expires_at> <load_time> 0⏎null⏎                        nobody
//! <token> 2 lease                                                        being loaded
//! ```
//!
//! Invariant: no two contents have the same token. So to compare tokens is to compare contents.

use std::{collections::HashMap, fmt, time::Duration};

use axum::body::Bytes;

use crate::user::{User, UserId};

// ANCHOR: format
/// Raise it with each change to the shape of a user's JSON. It is a part of the value and not of the key: a process of
/// the old version that deletes `user:1` then deletes it for the new version too. If it were a part of the key, a
/// change during a deploy would leave the other version's value behind.
const FORMAT: &str = "2";
// ANCHOR_END: format

/// In a user's place when nobody has the id.
const NOBODY: &[u8] = b"null\n";
/// Letters of a token.
const TOKEN: usize = 16;

/// A user as it is cached and sent: one line of JSON, and the version for the `ETag`. A hit is neither parsed nor
/// written again, nor copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserJson {
    /// The line.
    pub json: Bytes,
    /// See [`User::version`].
    pub version: i64,
}

impl UserJson {
    /// The JSON of this user.
    pub fn of(user: &User) -> Result<Self, serde_json::Error> {
        let json = Bytes::from(serde_json::to_string(user)? + "\n");
        Ok(Self { json, version: user.version })
    }
}

/// Users by their ids; `None` if nobody has the id.
pub type Users = HashMap<UserId, Option<UserJson>>;

/// What a key can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A user, or nobody.
    Value(Value),
    /// Somebody is loading it.
    Lease,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// Tells this content from every other one.
    pub token: String,
    /// `None` if nobody has this id.
    pub user: Option<UserJson>,
    /// When Redis forgets it, in milliseconds of Redis' own clock.
    pub expires_at: u64,
    /// How long it took to load. The longer it took, the earlier an early refresh begins.
    pub load_time: Duration,
}

/// A token that no other content has.
pub fn token() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The bytes of the lease with this token.
pub fn lease(token: &str) -> Vec<u8> {
    format!("{token} {FORMAT} lease").into_bytes()
}

// ANCHOR: encoding
impl Value {
    /// How long the value will stay, if Redis' clock says `now`.
    pub fn left(&self, now: u64) -> Duration {
        Duration::from_millis(self.expires_at.saturating_sub(now))
    }

    /// The bytes of a value.
    pub fn encode(&self) -> Vec<u8> {
        let (body, version) = match &self.user {
            Some(user) => (user.json.as_ref(), user.version),
            None => (NOBODY, 0),
        };
        let Self { token, expires_at, load_time, .. } = self;
        let micros = load_time.as_micros();
        let head = format!("{token} {FORMAT} user {expires_at} {micros} {version}\n");
        [head.as_bytes(), body].concat()
    }
}

/// Reads what lies under a key, if it was written by us and in this format.
pub fn decode(bytes: &Bytes) -> Option<Content> {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let mut words = std::str::from_utf8(&bytes[..end]).ok()?.split(' ');
    let token = words.next().filter(|token| token.len() == TOKEN)?;
    if words.next()? != FORMAT {
        return None;
    }
    match words.next()? {
        "lease" => Some(Content::Lease),
        "user" => {
            let expires_at = words.next()?.parse().ok()?;
            let load_time = Duration::from_micros(words.next()?.parse().ok()?);
            let version = words.next()?.parse().ok()?;
            let json = bytes.slice((end + 1).min(bytes.len())..);
            let user = (json != NOBODY).then_some(UserJson { json, version });
            Some(Content::Value(Value { token: token.to_owned(), user, expires_at, load_time }))
        }
        _ => None,
    }
}
// ANCHOR_END: encoding

/// What was read: `None` if nobody has this id.
pub type Read = (Option<UserJson>, Source);

/// Where an answer came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The copy in this process, which stays for this many seconds more.
    Near(u64),
    /// Redis, where it stays for this many seconds more.
    Hit(u64),
    /// The database.
    Miss {
        /// Whether the value was put into Redis.
        stored: bool,
    },
    /// The database, and Redis was not asked.
    Bypass,
}

/// As `Cache-Status` says it: RFC 9211.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Near(ttl) => write!(f, "near; hit; ttl={ttl}"),
            Self::Hit(ttl) => write!(f, "redis; hit; ttl={ttl}"),
            Self::Miss { stored: true } => f.write_str("redis; fwd=miss; stored"),
            Self::Miss { stored: false } => f.write_str("redis; fwd=miss"),
            Self::Bypass => f.write_str("redis; fwd=bypass"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(user: Option<UserJson>) -> Value {
        let load_time = Duration::from_micros(850);
        Value { token: token(), user, expires_at: 1_700_000_000_123, load_time }
    }

    fn ada() -> UserJson {
        UserJson { json: Bytes::from_static(b"{\"id\":1,\"name\":\"Ada\"}\n"), version: 3 }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for user in [Some(ada()), None] {
            let value = value(user);
            assert_eq!(decode(&value.encode().into()), Some(Content::Value(value)));
        }
        assert_eq!(decode(&lease(&token()).into()), Some(Content::Lease));
    }

    #[test]
    fn every_content_begins_with_its_token() {
        let (value, token) = (value(None), token());
        assert!(value.encode().starts_with(value.token.as_bytes()));
        assert!(lease(&token).starts_with(token.as_bytes()));
        assert_eq!(token.len(), TOKEN);
    }

    #[test]
    fn another_format_and_rubbish_are_not_believed() {
        let good = String::from_utf8(value(Some(ada())).encode()).unwrap();
        for bad in [
            good.replace(" 2 user", " 1 user"),
            good.replace(" 2 user", " 3 user"),
            good.replace(" 2 user", " 2 users"),
            good.replace("1700000000123", "soon"),
            good[1..].to_owned(),
            "null".to_owned(),
            "lease/1 life x".to_owned(),
            "\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(decode(&bad.clone().into()), None, "{bad}");
        }
        assert_eq!(decode(&Bytes::from_static(b"\xff\xfe\n\xff")), None);
    }
}
