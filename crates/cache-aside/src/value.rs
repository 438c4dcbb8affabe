//! What lies in Redis under `user:{id}`, and how does a reader know that it is ours?
//!
//! One key holds either a user (or the news that there is none) or a *lease*, the right to fill the key. A
//! header line says which, in the clear, so that `redis-cli get …user:1` can be read:
//!
//! ```text
//! user/1 <life> <token> <expires_at> <load_time> <crc32>⏎{"id":1,"name":…}      a user
//! user/1 <life> <token> <expires_at> <load_time> <crc32>⏎null                   nobody
//! lease/1 <life> <token>                                                        being loaded
//! ```
//!
//! Invariant: what is not of this version, of this life of the server, and whole, is never believed.

use std::time::Duration;

use crate::user::UserJson;

// ANCHOR: version
/// To be raised with each change to the shape of a user's JSON. It is a part of the value and not of the key: a
/// process of the old version that deletes `user:1` then deletes it for the new version too. Were it a part
/// of the key, updates made during a deploy would leave the other version's value behind.
const VERSION: &str = "1";
// ANCHOR_END: version

/// In a user's place when there is none.
const NOBODY: &str = "null";

/// What a key can hold.
#[derive(Clone, Debug, PartialEq)]
pub enum Content {
    /// A user, or nobody.
    Value(Value),
    /// Somebody is loading it.
    Lease,
    /// Not written by us, or by another version, or before the server's last start.
    Other,
}

/// What was loaded.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// `None`: nobody has this id.
    pub user: Option<UserJson>,
    /// When Redis forgets it, in milliseconds of Redis' own clock.
    pub expires_at: u64,
    /// How long it took to load: what an early refresh goes by.
    pub load_time: Duration,
}

/// Something that nobody else writes, so that no two contents are the same bytes.
pub fn token() -> String {
    format!("{:016x}", rand::random::<u64>())
}

/// The bytes of a lease.
pub fn lease(life: &str) -> Vec<u8> {
    format!("lease/{VERSION} {life} {}", token()).into_bytes()
}

// ANCHOR: encoding
impl Value {
    /// The bytes of a value.
    pub fn encode(&self, life: &str) -> Vec<u8> {
        let body = self.user.as_ref().map_or(NOBODY, UserJson::as_str);
        let Self { expires_at, load_time, .. } = self;
        let (token, micros, crc) =
            (token(), load_time.as_micros(), crc32fast::hash(body.as_bytes()));
        format!("user/{VERSION} {life} {token} {expires_at} {micros} {crc}\n{body}").into_bytes()
    }

    fn decode<'a>(mut words: impl Iterator<Item = &'a str>, body: &[u8]) -> Option<Self> {
        let expires_at = words.next()?.parse().ok()?;
        let load_time = Duration::from_micros(words.next()?.parse().ok()?);
        let crc: u32 = words.next()?.parse().ok()?;
        if crc != crc32fast::hash(body) {
            return None;
        }
        let user = if body == NOBODY.as_bytes() { None } else { Some(UserJson::kept(body)?) };
        Some(Self { user, expires_at, load_time })
    }
}

/// Reads what lies under a key. `life` is that of the server it came from.
pub fn decode(bytes: &[u8], life: &str) -> Content {
    let end = bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len());
    let mut words = std::str::from_utf8(&bytes[..end]).unwrap_or_default().split(' ');
    let kind = words.next().and_then(|word| word.split_once('/'));
    let (written_in, token) = (words.next(), words.next().unwrap_or_default());
    match kind {
        Some((kind, VERSION)) if written_in == Some(life) && !token.is_empty() => match kind {
            "lease" => Content::Lease,
            "user" => {
                let body = bytes.get(end + 1..).unwrap_or_default();
                Value::decode(words, body).map_or(Content::Other, Content::Value)
            }
            _ => Content::Other,
        },
        _ => Content::Other,
    }
}
// ANCHOR_END: encoding

#[cfg(test)]
mod tests {
    use super::*;

    fn value(user: Option<UserJson>) -> Value {
        Value { user, expires_at: 1_700_000_000_123, load_time: Duration::from_micros(850) }
    }

    fn ada() -> UserJson {
        UserJson::kept(r#"{"id":1,"name":"Ada","email":"ada@example.org"}"#.as_bytes()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_again() {
        for user in [Some(ada()), None] {
            let bytes = value(user.clone()).encode("life");
            assert_eq!(decode(&bytes, "life"), Content::Value(value(user)));
        }
        assert_eq!(decode(&lease("life"), "life"), Content::Lease);
    }

    #[test]
    fn no_two_contents_are_the_same_bytes() {
        assert_ne!(lease("life"), lease("life"));
        assert_ne!(value(None).encode("life"), value(None).encode("life"));
    }

    #[test]
    fn another_life_another_version_and_rubbish_are_not_believed() {
        let good = value(Some(ada())).encode("life");
        assert_eq!(decode(&good, "next"), Content::Other);
        assert_eq!(decode(&lease("life"), "next"), Content::Other);
        let text = String::from_utf8(good.clone()).unwrap();
        for bad in [
            text.replace("user/1 ", "user/2 "),
            text.replace("user/1 ", "user/0 "),
            text.replace("Ada", "Eve"),
            text.replace("1700000000123", "soon"),
            text[..text.len() - 1].to_owned(),
            text.replace('\n', ""),
            "null".to_owned(),
            "lease/1 life ".to_owned(),
            "\n".to_owned(),
            String::new(),
        ] {
            assert_eq!(decode(bad.as_bytes(), "life"), Content::Other, "{bad}");
        }
        assert_eq!(decode(b"\xff\xfe\n\xff", "life"), Content::Other);
    }
}
