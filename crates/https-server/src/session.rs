//! How does a browser stay logged in? With a cookie that never leaves over plain HTTP.

use axum::http::{HeaderMap, header::COOKIE};
use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use ring::{
    hmac::{self, HMAC_SHA256, Key},
    rand::SystemRandom,
};
use serde::Deserialize;
use time::{Duration, OffsetDateTime};

use crate::error::Error;

/// `__Host-`: a browser takes such a cookie only over HTTPS, and only if it is `Secure` and for this very host. So neither
/// plain HTTP nor a neighbour's subdomain can put another in its place.
const NAME: &str = "__Host-session";
const LIFE: Duration = Duration::hours(12);

/// The one user of this demonstration. How passwords are kept is another chapter.
const USER: &str = "ada";
const PASSWORD: &[u8] = b"lovelace";

/// What a client logs in with.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    user: String,
    password: String,
}

/// Signs and checks cookies. The key is new with each start, and then everybody has to log in again.
pub struct Sessions(Key);

impl Sessions {
    /// With a key of its own.
    pub fn new() -> Result<Self, ring::error::Unspecified> {
        Ok(Self(Key::generate(HMAC_SHA256, &SystemRandom::new())?))
    }

    // ANCHOR: cookie
    /// The header `Set-Cookie` for who has the right password.
    pub fn log_in(&self, login: &Login, now: OffsetDateTime) -> Result<String, Error> {
        // Both are compared as MACs, which takes the same time for every wrong password.
        let right = hmac::sign(&self.0, PASSWORD);
        let knows = hmac::verify(&self.0, login.password.as_bytes(), right.as_ref()).is_ok();
        if !knows || login.user != USER {
            return Err(Error::WrongPassword);
        }
        let says = format!("{USER}.{}", (now + LIFE).unix_timestamp());
        let mac = BASE64_URL_SAFE_NO_PAD.encode(hmac::sign(&self.0, says.as_bytes()));
        Ok(format!("{NAME}={says}.{mac}; Path=/; Secure; HttpOnly; SameSite=Lax"))
    }
    // ANCHOR_END: cookie

    /// Who has sent these headers.
    pub fn user(&self, headers: &HeaderMap, now: OffsetDateTime) -> Result<String, Error> {
        let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
        let mut pairs =
            cookies.flat_map(|value| value.split(';')).filter_map(|it| it.split_once('='));
        let token = pairs.find(|(name, _)| name.trim() == NAME);
        token.and_then(|it| self.check(it.1.trim(), now)).ok_or(Error::NotLoggedIn)
    }

    fn check(&self, token: &str, now: OffsetDateTime) -> Option<String> {
        let (says, mac) = token.rsplit_once('.')?;
        let mac = BASE64_URL_SAFE_NO_PAD.decode(mac).ok()?;
        hmac::verify(&self.0, says.as_bytes(), &mac).ok()?;
        let (user, ends) = says.rsplit_once('.')?;
        (now.unix_timestamp() < ends.parse().ok()?).then(|| user.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn login(user: &str, password: &str) -> Login {
        Login { user: user.to_owned(), password: password.to_owned() }
    }

    fn user(sessions: &Sessions, cookie: &str, now: OffsetDateTime) -> Option<String> {
        let headers = HeaderMap::from_iter([(COOKIE, HeaderValue::from_str(cookie).unwrap())]);
        sessions.user(&headers, now).ok()
    }

    #[test]
    fn a_cookie_is_good_until_it_ends_and_nobody_else_can_make_one() {
        let (sessions, now) = (Sessions::new().unwrap(), OffsetDateTime::now_utc());
        let set = sessions.log_in(&login("ada", "lovelace"), now).unwrap();
        let mut parts = set.split("; ");
        let cookie = parts.next().unwrap();
        let attributes: Vec<_> = parts.collect();
        for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
            assert!(attributes.contains(&attribute), "{set}");
        }
        assert!(cookie.starts_with("__Host-"), "{set}");
        let among = format!("a=b; {cookie}; c=d");
        for good in [cookie, &among] {
            assert_eq!(user(&sessions, good, now).as_deref(), Some("ada"), "{good}");
        }
        assert_eq!(user(&sessions, cookie, now + LIFE), None);
        let other = Sessions::new().unwrap();
        let changed = cookie.replace("ada", "bob");
        for (sessions, bad) in [
            (&other, cookie),
            (&sessions, &changed),
            (&sessions, "__Host-session=ada.9.a"),
            (&sessions, ""),
        ] {
            assert_eq!(user(sessions, bad, now), None, "{bad}");
        }
    }

    #[test]
    fn only_the_right_password_logs_in() {
        let (sessions, now) = (Sessions::new().unwrap(), OffsetDateTime::now_utc());
        for (user, password) in [("ada", ""), ("ada", "Lovelace"), ("bob", "lovelace"), ("", "")] {
            assert!(sessions.log_in(&login(user, password), now).is_err(), "{user} {password}");
        }
    }
}
