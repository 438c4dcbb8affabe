//! What is a user, to the program and to its clients?

use edge::{Mistakes, email::Email};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::links::{self, Linked};
use crate::negotiate::{V1, Version};
use crate::order::{Order, short_line};

/// A row of `users`.
#[derive(Clone, Debug, Serialize, Deserialize, sqlx::FromRow, ToSchema)]
pub struct User {
    /// Ours, or the one that the client chose in a PUT.
    pub id: Uuid,
    /// One line.
    pub name: String,
    /// As its owner writes it.
    pub email: String,
    /// Up to ten short lines.
    pub tags: Vec<String>,
    /// Another one after each change.
    pub version: i64,
    /// Once.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// At the last change.
    #[serde(with = "rfc3339")]
    pub updated_at: OffsetDateTime,
    /// The newest hundred, if they were asked for.
    #[sqlx(skip)]
    #[serde(skip_deserializing, skip_serializing_if = "Option::is_none")]
    pub orders: Option<Vec<Linked<Order>>>,
}

/// All of a user that a client decides: the body of POST and PUT, and what a PATCH changes.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, ToSchema)]
#[serde(deny_unknown_fields, expecting = "an object with `name` and `email`")]
pub struct UserInput {
    #[schema(min_length = 1, max_length = 200, example = "Ada")]
    name: String,
    #[schema(max_length = 254, format = Email, example = "ada@example.org")]
    email: String,
    #[serde(default)]
    #[schema(max_items = 10)]
    tags: Vec<String>,
}

/// The same, checked.
#[derive(Clone, Debug)]
pub struct NewUser {
    /// One line.
    pub name: String,
    /// With the key of all its spellings.
    pub email: Email,
    /// Up to ten short lines.
    pub tags: Vec<String>,
}

impl UserInput {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(self) -> Result<NewUser> {
        let mut mistakes = Mistakes::default();
        let name = mistakes.note("name", short_line(&self.name, 200));
        let email = mistakes.note("email", Email::parse(&self.email));
        let few = self.tags.len() <= 10 && self.tags.iter().all(|tag| short_line(tag, 50).is_ok());
        let few = few.then_some(self.tags).ok_or("must be at most 10, each 1 to 50 characters");
        let tags = mistakes.note("tags", few);
        let new = name.map(str::to_owned).zip(email).zip(tags);
        let new = new.map(|((name, email), tags)| NewUser { name, email, tags });
        mistakes.finish(new).map_err(Error::Invalid)
    }
}

/// A user as in version 1, which knew no tags and no links.
#[derive(Debug, Serialize, ToSchema)]
pub struct Customer {
    id: Uuid,
    full_name: String,
    email: String,
}

/// A user in one of the two versions.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum UserBody {
    /// The old one.
    V1(Customer),
    /// Today's.
    V2(Linked<User>),
}

impl User {
    /// As clients see it.
    pub fn in_version(self, version: Version) -> UserBody {
        if version == V1 {
            let Self { id, name: full_name, email, .. } = self;
            return UserBody::V1(Customer { id, full_name, email });
        }
        let path = links::user(self.id);
        let links = [("orders", format!("{path}/orders")), ("self", path)];
        UserBody::V2(Linked::new(self, links))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(name: &str, email: &str, tags: &[&str]) -> Vec<String> {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        match (UserInput { name: name.to_owned(), email: email.to_owned(), tags }).parse() {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        assert_eq!(wrong("Ada", "ada@example.org", &["a", "b"]), [""; 0]);
        assert_eq!(wrong(" ", "nobody", &["\n"]), ["name", "email", "tags"]);
        assert_eq!(wrong(&"a".repeat(201), "ada@example.org", &["x"; 11]), ["name", "tags"]);
    }
}
