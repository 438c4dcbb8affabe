//! How does a client read a list that changes while it reads? From where it stopped, not from a number of rows.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use edge::{email::Email, text::is_line};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, serde::rfc3339};
use url::form_urlencoded::{Serializer, parse};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::user::User;

/// The last row of a page. Nothing in it is secret, and a forged one shows nothing that the client could not ask for, so it
/// is not signed: it is encoded only to keep clients from building it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cursor {
    /// The query that it belongs to, since a place in one order means nothing in another.
    query: String,
    /// For a list that is sorted by it.
    pub name: String,
    /// The same.
    #[serde(with = "rfc3339")]
    pub created_at: OffsetDateTime,
    /// Where that is the same in two rows.
    pub id: Uuid,
}

/// Which users, in which order, and from where.
#[derive(Debug, Default)]
pub struct PageQuery {
    /// As it was asked, without the cursor.
    asked: BTreeMap<String, String>,
    /// At most so many.
    pub limit: u8,
    /// Sorted by `name` or `created_at`. Each has an index that ends with the id, so no two users have the same place.
    pub column: &'static str,
    /// The last first.
    pub descending: bool,
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
    pub fn parse(query: &str) -> Result<Self> {
        let mut page = Self { limit: 20, column: "created_at", ..Self::default() };
        for (name, value) in parse(query.as_bytes()).into_owned() {
            let wrong = |message: &str| Error::invalid(&name, message);
            match name.as_str() {
                _ if page.asked.contains_key(&name) => return Err(wrong("is there twice")),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=200).contains(limit));
                    page.limit = limit.ok_or_else(|| wrong("must be from 1 to 200"))?;
                }
                "sort" => {
                    page.descending = value.starts_with('-');
                    let column = value.strip_prefix('-').unwrap_or(&value);
                    let column = ["created_at", "name"].into_iter().find(|it| *it == column);
                    page.column =
                        column.ok_or_else(|| wrong("must be [-]name or [-]created_at"))?;
                }
                "email" => page.email = Some(Email::parse(&value).map_err(wrong)?.key().to_owned()),
                "include" if value == "orders" => page.with_orders = true,
                // It is looked at when the rest of the query is known.
                "cursor" => {}
                _ => return Err(wrong("is no parameter of this list, or has no such value")),
            }
            page.asked.insert(name, value);
        }
        if let Some(cursor) = page.asked.remove("cursor") {
            let wrong = || Error::invalid("cursor", "is none of this query");
            page.after = Some(page.parse_cursor(&cursor).ok_or_else(wrong)?);
        }
        Ok(page)
    }

    // ANCHOR: cursor
    /// What the cursors of this query say of it.
    fn name(&self) -> String {
        format!("{} {} {:?}", self.column, self.descending, self.email)
    }

    fn parse_cursor(&self, text: &str) -> Option<Cursor> {
        let cursor: Cursor = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(text).ok()?).ok()?;
        (cursor.query == self.name() && is_line(&cursor.name)).then_some(cursor)
    }

    /// The query of the page after these users, if there is one; `users` has one more than the page, which is taken away.
    pub fn next(&self, users: &mut Vec<User>) -> Option<String> {
        users.get(usize::from(self.limit))?;
        users.truncate(self.limit.into());
        let User { name, created_at, id, .. } = users.last()?.clone();
        let cursor = Cursor { query: self.name(), name, created_at, id };
        let cursor = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&cursor).ok()?);
        let mut next = Serializer::new(String::new());
        Some(next.extend_pairs(&self.asked).append_pair("cursor", &cursor).finish())
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
            orders: None,
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
    fn a_cursor_that_no_database_takes_never_gets_there() {
        let page = PageQuery::parse("").unwrap();
        let cursor = |created_at: &str, name: &str| {
            let cursor = serde_json::json!({
                "query": page.name(), "name": name, "created_at": created_at, "id": Uuid::nil(),
            });
            format!("cursor={}", URL_SAFE_NO_PAD.encode(cursor.to_string()))
        };
        let noon = "2026-01-31T12:00:00Z";
        assert_eq!(wrong(&cursor(noon, "Ada")), "");
        for (created_at, name) in [("yesterday", "Ada"), ("infinity", "Ada"), (noon, "\0")] {
            assert_eq!(wrong(&cursor(created_at, name)), "cursor", "{created_at} {name:?}");
        }
    }
}
