//! How does a client read a list that changes while it reads? From where it stopped, not from a number of rows.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use edge::{FieldError, email::Email, text::is_line};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};
use url::form_urlencoded;
use uuid::Uuid;

use crate::{error::Error, user::User};

/// Users on the longest page.
const LONGEST_PAGE: i64 = 200;

/// A column to sort by, and the direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sort {
    /// `name` or `created_at`. Each has an index that ends with the id, so no two users have the same place.
    pub column: &'static str,
    /// The last first.
    pub descending: bool,
}

impl Sort {
    fn parse(text: &str) -> Option<Self> {
        let (name, descending) = text.strip_prefix('-').map_or((text, false), |name| (name, true));
        let column = ["created_at", "name"].into_iter().find(|column| *column == name)?;
        Some(Self { column, descending })
    }

    fn key(self, user: &User) -> String {
        match self.column {
            "name" => user.name.clone(),
            _ => user.created_at.format(&Rfc3339).unwrap_or_default(),
        }
    }
}

/// The last row of a page. Nothing in it is secret, and a forged one shows nothing that the client could not ask for, so it
/// is not signed: it is encoded only to keep clients from building it.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The query that it belongs to, since a place in one order means nothing in another.
    query: (String, Option<String>),
    /// What the rows are sorted by.
    pub key: String,
    /// The id, where the keys are the same.
    pub id: Uuid,
}

/// Which users, in which order, and from where.
#[derive(Debug)]
pub struct PageQuery {
    parameters: Vec<(String, String)>,
    /// At most so many.
    pub limit: i64,
    /// In this order.
    pub sort: Sort,
    /// Only the user with this address, as the key of all its spellings.
    pub email: Option<String>,
    /// With their orders.
    pub with_orders: bool,
    /// After this row.
    pub after: Option<Cursor>,
}

impl PageQuery {
    /// Parses a query string. A parameter that is unknown, or there twice, is a mistake: ignoring `emial=…` would show
    /// everybody.
    pub fn parse(query: &str) -> Result<Self, Error> {
        let parameters: Vec<_> = form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let wrong =
            |field: &str, message: &str| Error::Invalid(vec![FieldError::new(field, message)]);
        for (at, (name, _)) in parameters.iter().enumerate() {
            if !["limit", "sort", "email", "include", "cursor"].contains(&name.as_str()) {
                return Err(wrong(name, "is not a parameter of this list"));
            }
            if parameters[..at].iter().any(|(other, _)| other == name) {
                return Err(wrong(name, "is there twice"));
            }
        }
        let get = |name: &str| {
            parameters.iter().find(|(it, _)| it == name).map(|(_, value)| value.as_str())
        };
        let limit = get("limit").map_or(Some(20), |text| text.parse().ok());
        let limit = limit.filter(|limit| (1..=LONGEST_PAGE).contains(limit));
        let limit = limit.ok_or_else(|| wrong("limit", "must be from 1 to 200"))?;
        let sort = Sort::parse(get("sort").unwrap_or("created_at"));
        let sort = sort.ok_or_else(|| wrong("sort", "must be [-]name or [-]created_at"))?;
        let email = get("email").map(|text| Email::parse(text).map(|email| email.key().to_owned()));
        let email = email.transpose().map_err(|message| wrong("email", message))?;
        if get("include").is_some_and(|include| include != "orders") {
            return Err(wrong("include", "must be orders"));
        }
        let (with_orders, cursor) = (get("include").is_some(), get("cursor").map(str::to_owned));
        let mut page = Self { parameters, limit, sort, email, with_orders, after: None };
        if let Some(cursor) = cursor {
            let after = page.parse_cursor(&cursor);
            page.after = Some(after.ok_or_else(|| wrong("cursor", "is none of this query"))?);
        }
        Ok(page)
    }

    // ANCHOR: cursor
    /// What the cursors of this query say of it.
    fn name(&self) -> (String, Option<String>) {
        (format!("{:?}", self.sort), self.email.clone())
    }

    fn parse_cursor(&self, text: &str) -> Option<Cursor> {
        let cursor: Cursor = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        let is_key = match self.sort.column {
            "name" => is_line(&cursor.key),
            // PostgreSQL has no year 0.
            _ => OffsetDateTime::parse(&cursor.key, &Rfc3339).is_ok_and(|at| at.year() > 0),
        };
        (is_key && cursor.query == self.name()).then_some(cursor)
    }

    /// The query of the page after these users, if there is one; `users` has one more than the page, which is taken away.
    pub fn next(&self, users: &mut Vec<User>) -> Option<String> {
        let full = usize::try_from(self.limit).unwrap_or_default();
        let last = if users.len() > full { users.get(full - 1)? } else { return None };
        let cursor = Cursor { query: self.name(), key: self.sort.key(last), id: last.id };
        let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).ok()?);
        users.truncate(full);
        let others = self.parameters.iter().filter(|(name, _)| name != "cursor");
        let mut query = form_urlencoded::Serializer::new(String::new());
        Some(query.extend_pairs(others).append_pair("cursor", &cursor).finish())
    }
    // ANCHOR_END: cursor
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(query: &str) -> String {
        match PageQuery::parse(query) {
            Err(Error::Invalid(errors)) => errors[0].field.clone(),
            _ => String::new(),
        }
    }

    fn two() -> Vec<User> {
        let at = OffsetDateTime::from_unix_timestamp_nanos(1_700_000_000_123_456_000).unwrap();
        let user = |id, name: &str| User {
            id: Uuid::from_u128(id),
            name: name.to_owned(),
            email: String::new(),
            tags: vec![],
            version: 1,
            created_at: at,
            updated_at: at,
        };
        vec![user(1, "Ada & Co"), user(2, "Bob")]
    }

    #[test]
    fn what_is_no_query_is_refused_by_name() {
        assert_eq!(wrong(""), "");
        assert_eq!(wrong("limit=200&sort=-name&email=ada@example.org&include=orders"), "");
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=%31x", "limit"),
            ("limit=1&limit=1", "limit"),
            ("sort=email", "sort"),
            ("sort=--name", "sort"),
            ("email=x", "email"),
            ("include=all", "include"),
            ("emial=ada@example.org", "emial"),
            ("cursor=", "cursor"),
            ("cursor=!!", "cursor"),
        ] {
            assert_eq!(wrong(query), field, "{query}");
        }
    }

    #[test]
    fn a_cursor_leads_on_in_its_own_query_and_in_no_other() {
        for sort in ["name", "-created_at"] {
            let page = PageQuery::parse(&format!("sort={sort}&limit=1")).unwrap();
            let mut users = two();
            let next = page.next(&mut users).unwrap();
            assert_eq!(users.len(), 1);
            assert_eq!(PageQuery::parse(&next).unwrap().after.unwrap().id, users[0].id);
            assert_eq!(wrong(&next.replace(sort, "created_at")), "cursor");
            assert_eq!(wrong(&format!("{next}&email=ada@example.org")), "cursor");
            assert!(page.next(&mut users).is_none());
        }
    }

    #[test]
    fn a_cursor_with_a_key_that_is_none_never_gets_to_the_database() {
        for (sort, key) in [
            ("created_at", "yesterday"),
            ("created_at", "infinity"),
            ("created_at", "0000-01-01T00:00:00Z"),
            ("name", "\0"),
        ] {
            let page = PageQuery::parse(&format!("sort={sort}")).unwrap();
            let cursor = Cursor { query: page.name(), key: key.to_owned(), id: Uuid::nil() };
            let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).unwrap());
            assert_eq!(wrong(&format!("sort={sort}&cursor={cursor}")), "cursor");
        }
    }
}
