//! Is what the client has still what we have? Conditional requests, RFC 9110, section 13.
//!
//! Invariant: no version is ever used twice, for any user, so an ETag that a client has kept never matches another state.

use std::fmt::Debug;

use axum::http::HeaderMap;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use headers::{ETag, HeaderMapExt, IfMatch, IfNoneMatch};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::negotiate::{V1, V2, Version};
use crate::user::User;

/// The strong ETag of a user. Each representation has its own, since strong means "the same bytes".
pub fn tag(user: &User, version: Version) -> String {
    format!("\"{}{}\"", user.version, if version == V1 { ".v1" } else { "" })
}

/// The weak ETag of a page: of the versions of all that is in it, and of what else was asked for. Nothing is written as JSON
/// first. Weak means "as good as", so it does not promise the same bytes.
pub fn weak_tag(users: &[User], asked: &impl Debug) -> String {
    let orders = users.iter().flat_map(|user| &user.orders).flatten().map(|it| it.resource.version);
    let versions: Vec<_> = users.iter().map(|user| user.version).chain(orders).collect();
    let hash = Sha256::digest(format!("{versions:?} {asked:?}"));
    format!("W/\"{}\"", URL_SAFE_NO_PAD.encode(hash))
}

/// Whether the client has this already, and so 304 is enough. `If-None-Match` compares weakly: W/"1" is like "1".
pub fn has_it(headers: &HeaderMap, tag: &str) -> bool {
    let (none, tag) = (headers.typed_get::<IfNoneMatch>(), tag.parse());
    none.zip(tag.ok()).is_some_and(|(none, tag)| !none.precondition_passes(&tag))
}

// ANCHOR: may_write
/// Whether this user may be replaced, or created, under the conditions of the request. To be asked with the user's row
/// locked: between this answer and the write nobody else may write.
pub fn may_write(headers: &HeaderMap, user: Option<&User>) -> Result<()> {
    let Some(user) = user else {
        // `If-Match` wants a version of something that is not there.
        return if headers.contains_key("if-match") { Err(Error::CHANGED) } else { Ok(()) };
    };
    let tags = [V2, V1].map(|version| tag(user, version));
    if tags.iter().any(|tag| has_it(headers, tag)) {
        return Err(Error::CHANGED);
    }
    // Strong comparison: a weak tag never matches.
    let holds = |these: IfMatch| {
        tags.iter().flat_map(|tag| tag.parse::<ETag>()).any(|tag| these.precondition_passes(&tag))
    };
    match headers.typed_get().map(holds) {
        // Of two clients that read and then write, the second would undo what the first has changed.
        None => Err(Error::NO_IF_MATCH),
        Some(true) => Ok(()),
        Some(false) => Err(Error::CHANGED),
    }
}
// ANCHOR_END: may_write

#[cfg(test)]
mod tests {
    use axum::{http::HeaderValue, response::IntoResponse};
    use time::OffsetDateTime;
    use uuid::Uuid;

    use super::*;

    fn user(version: i64) -> User {
        let now = OffsetDateTime::UNIX_EPOCH;
        let [name, email] = ["Ada", "ada@example.org"].map(str::to_owned);
        User {
            id: Uuid::nil(),
            name,
            email,
            tags: vec![],
            version,
            created_at: now,
            updated_at: now,
            orders: None,
        }
    }

    fn may(fields: &[(&'static str, &str)], user: Option<&User>) -> Option<u16> {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        may_write(&headers, user).err().map(|error| error.into_response().status().as_u16())
    }

    #[test]
    fn a_user_is_replaced_only_under_one_of_its_own_tags() {
        let seven = user(7);
        for good in ["\"7\"", "\"7.v1\"", "\"6\", \"7\"", "*"] {
            assert_eq!(may(&[("if-match", good)], Some(&seven)), None, "{good}");
        }
        for bad in ["\"6\"", "W/\"7\"", "7", "\"7", "", ",", "\"7.v2\"", "\"*\"", "nonsense"] {
            assert_eq!(may(&[("if-match", bad)], Some(&seven)), Some(412), "{bad}");
        }
        assert_eq!(may(&[("if-match", "\"1\""), ("if-match", "\"7\"")], Some(&seven)), None);
        assert_eq!(may(&[], Some(&seven)), Some(428));
    }

    #[test]
    fn a_user_that_is_not_there_is_created_unless_a_version_of_it_is_wanted() {
        assert_eq!(may(&[], None), None);
        assert_eq!(may(&[("if-none-match", "*")], None), None);
        assert_eq!(may(&[("if-match", "*")], None), Some(412));
        assert_eq!(may(&[("if-none-match", "*")], Some(&user(7))), Some(412));
    }

    #[test]
    fn whoever_has_it_gets_304() {
        let mut headers = HeaderMap::new();
        let strong = tag(&user(7), V2);
        assert!(!has_it(&headers, &strong));
        headers.insert("if-none-match", HeaderValue::from_static("\"6\", W/\"7\""));
        assert!(has_it(&headers, &strong));
        assert!(!has_it(&headers, &tag(&user(7), V1)));
    }
}
