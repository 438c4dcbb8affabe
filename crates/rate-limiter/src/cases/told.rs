//! What does an answer tell its client? `RateLimit-Policy` and `RateLimit`.

use std::time::Instant;

use anyhow::{Context, anyhow, bail};
use conform::{case::Outcome, expect::expect, http::header};
use reqwest::Response;
use sfv::{BareItem, List, ListEntry, Parser};

/// What an answer says of its first policy.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its name.
    pub name: String,
    /// Units in a window.
    pub limit: u64,
    /// Seconds.
    pub window: u64,
    /// Units that are left.
    pub remaining: u64,
    /// When we were told.
    pub at: Instant,
}

impl Told {
    /// Reads both fields.
    pub fn by(response: &Response) -> anyhow::Result<Self> {
        let first = field(response, "ratelimit-policy")?.into_iter().next();
        let (name, _) =
            first.context("expected a policy in the header RateLimit-Policy, got none")?;
        let number =
            |field, key| anyhow::Ok(u64::try_from(parameter(response, field, &name, key)?)?);
        Ok(Self {
            limit: number("ratelimit-policy", "q")?,
            window: number("ratelimit-policy", "w")?,
            remaining: number("ratelimit", "r")?,
            at: Instant::now(),
            name,
        })
    }

    /// Units that may have come back since then.
    pub fn back(&self) -> u64 {
        let micros = self.at.elapsed().as_micros() * u128::from(self.limit);
        u64::try_from(micros / (u128::from(self.window) * 1_000_000)).unwrap_or(u64::MAX)
    }

    /// Checks that a later answer tells of this many units left, or of a few more that have come back meanwhile.
    pub fn left(&self, response: &Response, expected: u64) -> Outcome {
        let told = Self::by(response)?;
        let most = expected + self.back();
        let what = format!("{expected} units left (`r` in RateLimit)");
        expect((expected..=most).contains(&told.remaining), what, told.remaining)
    }
}

/// An item's parameters that are whole numbers.
type Parameters = Vec<(String, i64)>;

/// A field, parsed as RFC 9651 has it: the name of each item, and its parameters.
pub fn field(response: &Response, name: &str) -> anyhow::Result<Vec<(String, Parameters)>> {
    let text = header(response, name);
    let list: List = Parser::new(text).parse().map_err(|error| {
        anyhow!("expected a list as RFC 9651 has it in {name}, got {text:?}: {error}")
    })?;
    let item = |entry| {
        let ListEntry::Item(item) = entry else {
            bail!("expected texts in the list {name}, got {text:?}")
        };
        let BareItem::String(of) = item.bare_item else {
            bail!("expected texts with quotes in {name}, got {text:?}")
        };
        let parameters = item.params.into_iter().filter_map(|(key, value)| match value {
            BareItem::Integer(value) => Some((key.as_str().to_owned(), value.into())),
            _ => None,
        });
        Ok((of.as_str().to_owned(), parameters.collect()))
    };
    list.into_iter().map(item).collect()
}

/// One parameter of one policy: `parameter(&response, "ratelimit", "api", "r")` units are left.
pub fn parameter(response: &Response, name: &str, policy: &str, key: &str) -> anyhow::Result<i64> {
    let field = field(response, name)?;
    let item = field.iter().find(|(name, _)| name == policy);
    let (_, parameters) = item.with_context(|| {
        format!("expected the policy {policy:?} in {name}, got {:?}", header(response, name))
    })?;
    let found = parameters.iter().find(|(name, _)| name == key);
    let seen = header(response, name);
    Ok(found.with_context(|| format!("expected a whole number {key} in {name}, got {seen:?}"))?.1)
}

/// The units that are left by the policy `api`.
pub fn units_left(response: &Response) -> anyhow::Result<i64> {
    parameter(response, "ratelimit", "api", "r")
}
