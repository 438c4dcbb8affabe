//! Which invoices, and in which order? The part of a query that no placeholder can hold: a column's name.

use edge::text::is_line;
use url::form_urlencoded;
use uuid::Uuid;

use crate::error::{Error, Result};

/// Which invoices, in which order, from where, and how many.
#[derive(Debug, Default)]
pub struct PageQuery {
    /// At most this many.
    pub limit: u16,
    /// A column of ours. The type has no place for a text of the client's.
    pub column: &'static str,
    /// The last first.
    pub descending: bool,
    /// Words to look for.
    pub search: Option<String>,
    /// After this invoice.
    pub after: Option<Uuid>,
}

impl PageQuery {
    // ANCHOR: parse
    /// Parses a query string, for at most `most` invoices. A parameter that is unknown, or there twice, is a mistake:
    /// `?customer_id=…` that is ignored looks like one that is obeyed.
    pub fn parse(query: &str, most: u16) -> Result<Self> {
        let mut page =
            Self { limit: 20, column: "created_at", descending: false, search: None, after: None };
        let mut seen = Vec::new();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let wrong = |message: &str| Error::invalid(&*name, message);
            match &*name {
                _ if seen.contains(&name) => return Err(wrong("is there twice")),
                "limit" => {
                    let limit = value.parse().ok().filter(|limit| (1..=most).contains(limit));
                    page.limit = limit.ok_or_else(|| wrong("is too small, too large or none"))?;
                }
                "sort" => {
                    page.descending = value.starts_with('-');
                    let column = value.strip_prefix('-').unwrap_or(&value);
                    let column =
                        ["created_at", "amount_cents"].into_iter().find(|it| *it == column);
                    page.column = column.ok_or_else(|| wrong("is no order of ours"))?;
                }
                "search" => {
                    let good = value.len() <= 200 && is_line(&value);
                    page.search = Some(
                        good.then(|| value.to_string())
                            .ok_or_else(|| wrong("must be at most 200 bytes on one line"))?,
                    );
                }
                "after" => {
                    page.after = Some(value.parse().map_err(|_| wrong("is no id of an invoice"))?);
                }
                _ => return Err(wrong("is no parameter of this list")),
            }
            seen.push(name);
        }
        Ok(page)
    }
    // ANCHOR_END: parse
}

#[cfg(test)]
mod tests {
    use edge::json::JsonRejection;

    use super::*;

    fn wrong(query: &str) -> String {
        match PageQuery::parse(query, 100) {
            Err(Error::Body(JsonRejection::Invalid(error))) => error.field,
            _ => String::new(),
        }
    }

    #[test]
    fn what_is_no_query_is_refused_by_name() {
        let id = Uuid::nil();
        assert_eq!(wrong(""), "");
        assert_eq!(wrong(&format!("limit=100&sort=-amount_cents&search=tea+milk&after={id}")), "");
        for (query, field) in [
            ("limit=0", "limit"),
            ("limit=101", "limit"),
            ("limit=1000000000", "limit"),
            ("limit=1&limit=1", "limit"),
            ("sort=margin_cents", "sort"),
            ("sort=--created_at", "sort"),
            ("sort=created_at;drop table users", "sort"),
            ("sort=(select 1)", "sort"),
            ("search=a%00b", "search"),
            ("search=a%0Ab", "search"),
            ("after=1", "after"),
            ("after=' or 1=1 --", "after"),
            ("customer_id=1", "customer_id"),
        ] {
            assert_eq!(wrong(query), field, "{query}");
        }
    }

    #[test]
    fn the_column_is_one_of_ours() {
        let page = PageQuery::parse("sort=-amount_cents", 100).unwrap();
        assert_eq!((page.column, page.descending, page.limit), ("amount_cents", true, 20));
        assert_eq!(PageQuery::parse("limit=500", 1_000).unwrap().limit, 500);
    }
}
