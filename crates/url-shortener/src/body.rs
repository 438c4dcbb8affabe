//! What do clients send, and how do they see a link?

use edge::FieldError;
use serde::{Deserialize, Deserializer, Serialize};
use time::OffsetDateTime;

use crate::{
    access::EditToken,
    code::Code,
    create::NewLink,
    error::Error,
    long_url::{LongUrl, Ourselves},
    store::Link,
};

/// Ten years of 365 days.
const MAX_SECONDS: i32 = 315_360_000;

/// What a client sends to make a link.
#[derive(Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    expecting = "an object with `url` and perhaps `alias` and `expires_in_seconds`"
)]
pub struct CreateLink {
    url: String,
    alias: Option<String>,
    expires_in_seconds: Option<i64>,
}

/// What a client sends to change one. What is not there stays as it is; an expiry of `null` is removed (RFC 7396).
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `url`, `expires_in_seconds` or both")]
pub struct ChangeLink {
    url: Option<String>,
    #[serde(default, deserialize_with = "given")]
    expires_in_seconds: Option<Option<i64>>,
}

/// Tells `null` from nothing.
fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<i64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

/// Parses fields, so that the client hears of all mistakes at once.
#[derive(Default)]
struct Fields {
    errors: Vec<FieldError>,
}

impl Fields {
    /// The value of an optional field.
    fn parse<T, U>(
        &mut self,
        name: &str,
        value: Option<T>,
        parse: impl FnOnce(T) -> Result<U, &'static str>,
    ) -> Option<U> {
        let parsed = parse(value?).map_err(|message| FieldError::new(name, message));
        parsed.map_err(|error| self.errors.push(error)).ok()
    }
}

fn seconds(seconds: i64) -> Result<i32, &'static str> {
    let seconds = i32::try_from(seconds).ok().filter(|it| (1..=MAX_SECONDS).contains(it));
    seconds.ok_or("must be from 1 to 315360000, which is ten years")
}

impl CreateLink {
    /// Parses all fields.
    pub fn parse(self, ourselves: &Ourselves) -> Result<NewLink, Error> {
        let mut fields = Fields::default();
        let url = fields.parse("url", Some(self.url), |url| LongUrl::parse(&url, ourselves));
        let alias = fields.parse("alias", self.alias, Code::alias);
        let expires = fields.parse("expires_in_seconds", self.expires_in_seconds, seconds);
        match url {
            Some(url) if fields.errors.is_empty() => {
                Ok(NewLink { url, alias, expires_in_seconds: expires })
            }
            _ => Err(Error::Invalid(fields.errors)),
        }
    }
}

impl ChangeLink {
    /// Parses all fields: the new URL, and the new expiry, which may be none.
    pub fn parse(
        self,
        ourselves: &Ourselves,
    ) -> Result<(Option<LongUrl>, Option<Option<i32>>), Error> {
        let mut fields = Fields::default();
        let url = fields.parse("url", self.url, |url| LongUrl::parse(&url, ourselves));
        let expires = self
            .expires_in_seconds
            .map(|expires| fields.parse("expires_in_seconds", expires, seconds));
        if fields.errors.is_empty() {
            Ok((url, expires))
        } else {
            Err(Error::Invalid(fields.errors))
        }
    }
}

/// A link, as clients see it.
#[derive(Debug, Serialize)]
pub struct LinkBody {
    code: Code,
    short_url: String,
    url: String,
    #[serde(with = "time::serde::rfc3339")]
    created_at: OffsetDateTime,
    #[serde(with = "time::serde::rfc3339::option")]
    expires_at: Option<OffsetDateTime>,
    /// Only in the answer to its creation.
    #[serde(skip_serializing_if = "Option::is_none")]
    edit_token: Option<String>,
}

impl LinkBody {
    /// The link, under the address of this service.
    pub fn new(link: Link, ourselves: &Ourselves) -> Self {
        let short_url =
            format!("{}/{}", ourselves.public.as_str().trim_end_matches('/'), link.code);
        let Link { code, url, created_at, expires_at, .. } = link;
        Self { code, short_url, url, created_at, expires_at, edit_token: None }
    }

    /// The same with its token, which nobody can see again.
    pub fn with_token(self, token: Option<EditToken>) -> Self {
        Self { edit_token: token.map(EditToken::reveal), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ourselves() -> Ourselves {
        let url = |url: &str| url.parse().unwrap();
        Ourselves { public: url("http://sho.rt"), listens: url("http://127.0.0.1:3000") }
    }

    fn errors(url: &str, alias: Option<&str>, seconds: Option<i64>) -> Vec<String> {
        let body = CreateLink {
            url: url.to_owned(),
            alias: alias.map(str::to_owned),
            expires_in_seconds: seconds,
        };
        match body.parse(&ourselves()) {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn expiry_is_from_a_second_to_ten_years() {
        for seconds in [1, 60, 315_360_000] {
            assert!(errors("http://a.example", None, Some(seconds)).is_empty(), "{seconds}");
        }
        for seconds in [i64::MIN, -1, 0, 315_360_001, 1 << 32, i64::MAX] {
            assert_eq!(errors("http://a.example", None, Some(seconds)), ["expires_in_seconds"]);
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(errors("ftp://a", Some("a.b"), Some(0)), ["url", "alias", "expires_in_seconds"]);
    }

    #[test]
    fn a_change_tells_no_expiry_from_an_expiry_that_is_not_mentioned() {
        for (body, expires) in [
            ("{}", None),
            (r#"{"expires_in_seconds": null}"#, Some(None)),
            (r#"{"expires_in_seconds": 60}"#, Some(Some(60))),
        ] {
            let change: ChangeLink = serde_json::from_str(body).unwrap();
            assert_eq!(change.parse(&ourselves()).unwrap().1, expires, "{body}");
        }
    }
}
