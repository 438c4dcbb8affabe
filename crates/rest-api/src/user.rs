//! What is a user, to the program and to its clients?

use edge::{FieldError, email::Email};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::error::Error;
use crate::links::{Links, Urls};
use crate::order::{OrderBody, is_short_line};

/// A row of `users`.
#[derive(Clone, Debug, Serialize, Deserialize, sqlx::FromRow, ToSchema)]
#[expect(missing_docs, reason = "the columns say it")]
pub struct User {
    pub id: Uuid,
    pub name: String,
    pub email: String,
    pub tags: Vec<String>,
    pub version: i64,
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    #[serde(with = "rfc3339")]
    pub updated_at: OffsetDateTime,
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
#[expect(missing_docs, reason = "as in `User`")]
pub struct NewUser {
    pub name: String,
    pub email: Email,
    pub tags: Vec<String>,
}

impl UserInput {
    /// Parses all fields, so that the client hears of all mistakes at once.
    pub fn parse(self) -> Result<NewUser, Error> {
        let mut errors = Vec::new();
        if !is_short_line(&self.name, 200) {
            errors.push(FieldError::new("name", "must be one line of 1 to 200 characters"));
        }
        if self.tags.len() > 10 || !self.tags.iter().all(|tag| is_short_line(tag, 50)) {
            errors.push(FieldError::new("tags", "must be at most 10, each 1 to 50 characters"));
        }
        match Email::parse(&self.email) {
            Ok(email) if errors.is_empty() => {
                Ok(NewUser { name: self.name, email, tags: self.tags })
            }
            Ok(_) => Err(Error::Invalid(errors)),
            Err(message) => {
                errors.push(FieldError::new("email", message));
                Err(Error::Invalid(errors))
            }
        }
    }
}

impl NewUser {
    /// Whether the user is like this already. Then a PUT or PATCH changes nothing, not even the version.
    pub fn is(&self, user: &User) -> bool {
        self.name == user.name && self.email.as_str() == user.email && self.tags == user.tags
    }
}

/// A user, as clients see it.
#[derive(Debug, Serialize, ToSchema)]
pub struct UserBody {
    #[serde(flatten)]
    user: User,
    #[serde(skip_serializing_if = "Option::is_none")]
    orders: Option<Vec<OrderBody>>,
    _links: Links,
}

impl UserBody {
    /// With the user's orders, if they were asked for.
    pub fn new(user: User, orders: Option<Vec<OrderBody>>, urls: &Urls) -> Self {
        Self { _links: urls.of_user(user.id), user, orders }
    }
}

/// A user as in version 1, which knew no tags and no links.
#[derive(Debug, Serialize, ToSchema)]
pub struct Customer {
    id: Uuid,
    full_name: String,
    email: String,
}

impl From<User> for Customer {
    fn from(User { id, name: full_name, email, .. }: User) -> Self {
        Self { id, full_name, email }
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
        assert_eq!(wrong(" ", "nobody", &["\n"]), ["name", "tags", "email"]);
        assert_eq!(wrong(&"a".repeat(201), "ada@example.org", &["x"; 11]), ["name", "tags"]);
    }
}
