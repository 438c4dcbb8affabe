//! What may a client send as a user? The table is in use while its indexes come and go.

use edge::{email::Email, text::is_line};
use serde::{Deserialize, Deserializer, de::Error};
use time::Date;

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

/// What a client sends. It is read only if each field is as it should be.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `email`, `name`, `city` and `born`")]
#[expect(missing_docs, reason = "the schema says what they are")]
pub struct NewUser {
    #[serde(deserialize_with = "address")]
    pub email: String,
    #[serde(deserialize_with = "line")]
    pub name: String,
    #[serde(deserialize_with = "line")]
    pub city: String,
    #[serde(with = "day")]
    pub born: Date,
    pub notes: Option<String>,
    pub referred_by: Option<i64>,
}

fn address<'de, D: Deserializer<'de>>(field: D) -> Result<String, D::Error> {
    let email = Email::parse(&String::deserialize(field)?).map_err(D::Error::custom)?;
    Ok(email.as_str().to_owned())
}

fn line<'de, D: Deserializer<'de>>(field: D) -> Result<String, D::Error> {
    let text = String::deserialize(field)?;
    let fits = !text.trim().is_empty() && text.chars().count() <= 200 && is_line(&text);
    fits.then_some(text).ok_or_else(|| D::Error::custom("must be one line of 1 to 200 characters"))
}
