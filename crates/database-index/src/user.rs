//! What is a user? The table that is in use while its indexes come and go.

use edge::{Mistakes, email::Email, text::is_line};
use serde::{Deserialize, Serialize};
use time::{Date, OffsetDateTime, macros::format_description, serde::rfc3339};

use crate::error::{Error, Result};

time::serde::format_description!(day, Date, "[year]-[month]-[day]");

/// A row of `users`.
#[derive(Clone, Debug, Serialize, sqlx::FromRow)]
pub struct User {
    /// Ours.
    pub id: i64,
    /// Two users may have the same, unless a unique index says otherwise.
    pub email: String,
    /// One line.
    pub name: String,
    /// One line.
    pub city: String,
    /// A day.
    #[serde(with = "day")]
    pub born: Date,
    /// `active` or `blocked`.
    pub status: String,
    /// Another user.
    pub referred_by: Option<i64>,
    /// Once.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
}

/// What a client sends.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `email`, `name`, `city` and `born`")]
pub struct UserInput {
    email: String,
    name: String,
    city: String,
    born: String,
    notes: Option<String>,
    referred_by: Option<i64>,
}

/// A new name for a user.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `name`")]
pub struct NameInput {
    name: String,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// As its owner writes it.
    pub email: String,
    /// One line.
    pub name: String,
    /// One line.
    pub city: String,
    /// A day.
    pub born: Date,
    /// Up to 20,000 bytes: more than a B-tree takes.
    pub notes: Option<String>,
    /// Another user.
    pub referred_by: Option<i64>,
}

impl UserInput {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(self) -> Result<NewUser> {
        let mut mistakes = Mistakes::default();
        let day = format_description!("[year]-[month]-[day]");
        let email = mistakes.note("email", Email::parse(&self.email));
        let name = mistakes.note("name", line(self.name));
        let city = mistakes.note("city", line(self.city));
        // PostgreSQL's days begin 4713 BC, and a user's do not.
        let born = Date::parse(&self.born, day).ok().filter(|born| born.year() >= 1900);
        let born = mistakes.note("born", born.ok_or("must be a day as 2001-12-31, from 1900 on"));
        let fits = self.notes.as_ref().is_none_or(|it| it.len() <= 20_000 && !it.contains('\0'));
        let notes = fits.then_some(self.notes).ok_or("must be at most 20000 bytes");
        let notes = mistakes.note("notes", notes).flatten();
        let email = email.map(|it| it.as_str().to_owned());
        let new = email.zip(name).zip(city).zip(born);
        let referred_by = self.referred_by;
        let new = new.map(|(((email, name), city), born)| NewUser {
            email,
            name,
            city,
            born,
            notes,
            referred_by,
        });
        mistakes.finish(new).map_err(Error::Invalid)
    }
}

impl NameInput {
    /// The name.
    pub fn parse(self) -> Result<String> {
        line(self.name).map_err(|message| Error::invalid("name", message))
    }
}

fn line(text: String) -> std::result::Result<String, &'static str> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 200 && is_line(&text);
    fits.then_some(text).ok_or("must be one line of 1 to 200 characters")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(body: Value) -> Vec<String> {
        match serde_json::from_value::<UserInput>(body).unwrap().parse() {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let good = json!({ "email": "ada@example.org", "name": "Ada", "city": "Rome", "born": "1815-12-10" });
        assert_eq!(wrong(good), ["born"]);
        let bad = json!({ "email": "ada", "name": " ", "city": "a\nb", "born": "2001-02-30", "notes": "\0" });
        assert_eq!(wrong(bad), ["email", "name", "city", "born", "notes"]);
    }
}
