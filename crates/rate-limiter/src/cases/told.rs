//! What does an answer tell its client? `RateLimit-Policy` and `RateLimit`.

use anyhow::{Context, ensure};
use reqwest::Response;

use conform::http::header;

/// What an answer says of the first policy.
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
}

impl Told {
    /// Reads both fields.
    pub fn by(response: &Response) -> anyhow::Result<Self> {
        let (name, policy) = item(header(response, "ratelimit-policy"), "RateLimit-Policy")?;
        let (same, state) = item(header(response, "ratelimit"), "RateLimit")?;
        ensure!(name == same, "RateLimit-Policy begins with {name}, RateLimit with {same}");
        let number = |parameters: &[(String, String)], name: &str| {
            let found = parameters.iter().find(|(key, _)| key == name);
            let (_, value) = found.with_context(|| format!("no {name} in {parameters:?}"))?;
            value.parse::<u64>().with_context(|| format!("{name} is {value}"))
        };
        number(&state, "t")?;
        Ok(Self {
            name,
            limit: number(&policy, "q")?,
            window: number(&policy, "w")?,
            remaining: number(&state, "r")?,
        })
    }
}

/// The first item of a list, and its parameters: RFC 9651, of which these fields need no more.
fn item(field: &str, name: &str) -> anyhow::Result<(String, Vec<(String, String)>)> {
    let first = field.split(',').next().unwrap_or_default();
    let mut parts = first.split(';').map(str::trim);
    let string = parts.next().and_then(|it| it.strip_prefix('"')?.strip_suffix('"'));
    let string = string.with_context(|| format!("{name} is {field:?}, no list of strings"))?;
    let pairs = parts.filter_map(|part| part.split_once('='));
    Ok((string.to_owned(), pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()))
}
