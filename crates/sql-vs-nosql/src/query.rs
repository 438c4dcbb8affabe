//! What is asked for? Products by attributes that nobody planned, a report that nobody planned either, and a session.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use url::form_urlencoded::parse;

use crate::entity::{Fields, Kind, is_id};
use crate::error::{Error, Result};

/// Which products.
#[derive(Debug, PartialEq, Eq)]
pub struct Search {
    /// Each attribute has just this text. `{"$gt":""}` is a text too. There are at most 20.
    pub attributes: BTreeMap<String, String>,
    /// At this price or below.
    pub max_price: i64,
}

impl Search {
    /// Parses a query string: `colour=red&max_price=500`.
    pub fn parse(query: &str) -> Result<Self> {
        let mut search = Self { attributes: BTreeMap::new(), max_price: i64::MAX };
        for (name, value) in parse(query.as_bytes()).into_owned() {
            let wrong = |says| Err(Error::invalid(&name, says));
            if name == "max_price" {
                match value.parse() {
                    Ok(cents @ 0..) if search.max_price == i64::MAX => search.max_price = cents,
                    _ => return wrong("must be whole cents, once"),
                }
            } else if Kind::Product.is_planned(&name) || format!("{name}{value}").contains('\0') {
                return wrong("search by attributes, and by max_price");
            } else if search.attributes.insert(name.clone(), value).is_some() {
                return wrong("is there twice");
            } else if search.attributes.len() > 20 {
                return wrong("is one attribute too many: there may be 20");
            }
        }
        Ok(search)
    }
}

/// A customer or a product, and which server it comes from: `primary` or `replica`.
pub type Read = (Fields, &'static str);

/// What the revenue is divided by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct By {
    /// The customer's country.
    pub country: bool,
    /// The month of the order, in UTC.
    pub month: bool,
    /// All of it as it was at one moment.
    pub snapshot: bool,
}

impl By {
    /// Parses a query string: `by=country,month&snapshot=true`.
    pub fn parse(query: &str) -> Result<Self> {
        let mut by = Self::default();
        for (name, value) in parse(query.as_bytes()) {
            match (&*name, &*value) {
                ("snapshot", "true" | "false") => by.snapshot = value == "true",
                ("by", "country") => by.country = true,
                ("by", "month") => by.month = true,
                ("by", "country,month" | "month,country") => (by.country, by.month) = (true, true),
                _ => return Err(Error::invalid(name, "is unknown, or has no such value")),
            }
        }
        if by.country || by.month { Ok(by) } else { Err(Error::invalid("by", "is missing")) }
    }
}

/// One row of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, sqlx::FromRow)]
pub struct Revenue {
    /// If it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// If it was asked for: `2026-01`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub month: Option<String>,
    /// How many orders.
    pub orders: i64,
    /// What they cost.
    pub cents: i64,
}

/// Who is signed in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
#[serde(deny_unknown_fields, expecting = "an object with `customer` and `ttl_seconds`")]
pub struct Session {
    /// Whose session it is.
    pub customer: String,
    /// How many seconds are left.
    pub ttl_seconds: i64,
}

impl Session {
    /// Itself, if it can be one: for a day at most.
    pub fn parse(self) -> Result<Self> {
        if !is_id(&self.customer) {
            return Err(Error::invalid("customer", "is no customer"));
        }
        let is_short = (1..=86_400).contains(&self.ttl_seconds);
        is_short.then_some(self).ok_or_else(|| Error::invalid("ttl_seconds", "must be 1 to 86400"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_is_text_whatever_it_looks_like() {
        let search = Search::parse("colour=red&max_price=500&%24where=%7B%22%24gt%22%3A%22%22%7D");
        let search = search.unwrap();
        assert_eq!(search.max_price, 500);
        assert_eq!(search.attributes["colour"], "red");
        assert_eq!(search.attributes["$where"], r#"{"$gt":""}"#);
    }

    #[test]
    fn a_search_that_cannot_be_is_refused() {
        for query in ["max_price=x", "max_price=-1", "max_price=1&max_price=2", "max_price=1.5"] {
            assert!(Search::parse(query).is_err(), "{query}");
        }
        for query in ["name=x", "price_cents=1", "stock=1", "id=1", "a=1&a=2", "a=%00"] {
            assert!(Search::parse(query).is_err(), "{query}");
        }
        assert!(Search::parse("").unwrap().attributes.is_empty());
        let many = |many| (0..many).map(|n| format!("a{n}=x&")).collect::<String>();
        assert!(Search::parse(&many(20)).is_ok());
        assert!(Search::parse(&many(21)).is_err());
    }

    #[test]
    fn a_report_is_divided_by_what_it_knows() {
        let by = By::parse("by=month,country&snapshot=true").unwrap();
        assert!(by.country && by.month && by.snapshot);
        for query in ["", "by=", "by=shoe", "by=month,month", "by=month&x=1", "by=month&snapshot=1"]
        {
            assert!(By::parse(query).is_err(), "{query}");
        }
    }
}
