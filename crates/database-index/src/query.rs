//! What is asked of the table? Queries with names, so that nobody sends us SQL, each with the indexes that could serve it.

use std::collections::BTreeMap;

use edge::Mistakes;
use serde::Serialize;
use serde_json::Value as Json;
use time::{Date, macros::format_description};

use crate::error::{Error, Result};
use crate::index::{
    BORN, CITY, CREATED_AT, Column, EMAIL, ID, Index, Key, Kind, NAME, Status, TAGS,
};

/// What a parameter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Takes {
    /// A text.
    Text,
    /// `2001-12-31`
    Date,
    /// A whole number.
    Integer,
}

/// A parameter, and one with which to try it.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Param {
    /// Its name in `params`.
    pub name: &'static str,
    /// What it is.
    pub takes: Takes,
    /// For a first try.
    pub example: &'static str,
}

/// A parameter's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A day.
    Date(Date),
    /// A whole number.
    Integer(i64),
}

/// A way to find the rows: the index that would serve it is made of this.
#[derive(Clone, Copy, Debug)]
pub struct Path {
    /// What is compared with `=`.
    equal: &'static [Key],
    /// The column of a range, or of the order.
    then: Option<Column>,
    kind: Kind,
    status: Option<Status>,
}

/// A query.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Query {
    /// In the URL.
    pub name: &'static str,
    /// Why somebody asks this.
    pub purpose: &'static str,
    /// The statement.
    pub sql: &'static str,
    /// In the order of `$1`, `$2`.
    pub params: &'static [Param],
    #[serde(skip)]
    paths: &'static [Path],
}

const fn param(name: &'static str, takes: Takes, example: &'static str) -> Param {
    Param { name, takes, example }
}

const EMAIL_PARAM: Param = param("email", Takes::Text, "user777@example.org");
const CITY_PARAM: Param = param("city", Takes::Text, "City 7");
const BORN_PARAM: Param = param("born", Takes::Date, "2000-01-01");

const fn path(equal: &'static [Key], then: Option<Column>) -> Path {
    Path { equal, then, kind: Kind::Btree, status: None }
}

const fn query(
    name: &'static str,
    purpose: &'static str,
    sql: &'static str,
    params: &'static [Param],
    paths: &'static [Path],
) -> Query {
    Query { name, purpose, sql, params, paths }
}

// ANCHOR: queries
/// All queries.
pub const QUERIES: [Query; 15] = [
    query(
        "by_email",
        "the usual example",
        "select id, name from users where email = $1",
        &[EMAIL_PARAM],
        &[path(&[Key::Column(EMAIL)], None)],
    ),
    query(
        "by_email_in_any_case",
        "looks like it, with a function around the column",
        "select id, name from users where lower(email) = lower($1)",
        &[EMAIL_PARAM],
        &[path(&[Key::Lower(EMAIL)], None)],
    ),
    query(
        "by_end_of_email",
        "looks like it, with a wildcard in front",
        "select id, name from users where email like '%' || $1",
        &[param("end", Takes::Text, "777@example.org")],
        &[Path { equal: &[Key::Column(EMAIL)], then: None, kind: Kind::Trigram, status: None }],
    ),
    query(
        "by_email_or_name",
        "looks like it, with an `or` to another column",
        "select id, name from users where email = $1 or name = $2",
        &[EMAIL_PARAM, param("name", Takes::Text, "User 777")],
        &[path(&[Key::Column(EMAIL)], None), path(&[Key::Column(NAME)], None)],
    ),
    query(
        "by_id_as_number",
        "looks like a search by the primary key, but a driver sends `numeric`, and that casts the column",
        "select id, name from users where id = $1::numeric",
        &[param("id", Takes::Integer, "777")],
        &[path(&[Key::Numeric(ID)], None)],
    ),
    query(
        "from_email_on",
        "looks like it, and returns more than half of the table",
        "select id, name from users where email >= $1",
        &[param("email", Takes::Text, "user15")],
        &[path(&[], Some(EMAIL))],
    ),
    query(
        "by_city",
        "one row of a hundred",
        "select id, name from users where city = $1",
        &[CITY_PARAM],
        &[path(&[Key::Column(CITY)], None)],
    ),
    query(
        "by_city_and_born",
        "two columns",
        "select id, name from users where city = $1 and born = $2",
        &[CITY_PARAM, BORN_PARAM],
        &[path(&[Key::Column(CITY), Key::Column(BORN)], None)],
    ),
    query(
        "by_city_born_since",
        "one column with `=`, one with a range",
        "select id, name from users where city = $1 and born >= $2",
        &[CITY_PARAM, BORN_PARAM],
        &[path(&[Key::Column(CITY)], Some(BORN))],
    ),
    query(
        "youngest_of_city",
        "in the order of a column, and only the first few",
        "select id, name from users where city = $1 order by born desc limit 20",
        &[CITY_PARAM],
        &[path(&[Key::Column(CITY)], Some(BORN))],
    ),
    query(
        "by_born",
        "the second column alone",
        "select id, name from users where born = $1",
        &[BORN_PARAM],
        &[path(&[Key::Column(BORN)], None)],
    ),
    query(
        "names_of_city",
        "two columns only, so an index can hold the whole answer",
        "select name from users where city = $1",
        &[CITY_PARAM],
        &[path(&[Key::Column(CITY)], None)],
    ),
    query(
        "blocked_lately",
        "always the same one row of a hundred",
        "select id, name from users where status = 'blocked' order by created_at desc limit 20",
        &[],
        &[Path {
            equal: &[],
            then: Some(CREATED_AT),
            kind: Kind::Btree,
            status: Some(Status::Blocked),
        }],
    ),
    query(
        "by_tag",
        "one of a list of words",
        "select id, name from users where tags @> array[$1]",
        &[param("tag", Takes::Text, "tag 7")],
        &[Path { equal: &[Key::Column(TAGS)], then: None, kind: Kind::Gin, status: None }],
    ),
    query(
        "created_on",
        "a day of a table that grows in this order",
        "select count(*) from users where created_at >= $1 and created_at < $1 + interval '1 day'",
        &[param("day", Takes::Date, "2026-01-01")],
        &[path(&[], Some(CREATED_AT))],
    ),
];
// ANCHOR_END: queries

impl Query {
    /// The query of this name.
    pub fn find(name: &str) -> Result<&'static Self> {
        QUERIES.iter().find(|query| query.name == name).ok_or(Error::NOT_FOUND)
    }

    /// The values in the order of the statement. All are there, and nothing else.
    pub fn values(&self, params: &BTreeMap<String, Json>) -> Result<Vec<Value>> {
        let mut mistakes = Mistakes::default();
        for name in params.keys().filter(|name| self.params.iter().all(|it| it.name != *name)) {
            mistakes.note::<()>(&format!("params.{name}"), Err("is no parameter of this query"));
        }
        let mut values = Vec::new();
        for param in self.params {
            let value = params.get(param.name).unwrap_or(&Json::Null);
            let value = mistakes.note(&format!("params.{}", param.name), param.takes.parse(value));
            values.extend(value);
        }
        mistakes.finish(Some(values)).map_err(Error::Invalid)
    }

    /// The values of the examples.
    pub fn examples(&self) -> Result<Vec<Value>> {
        self.values(&self.params.iter().map(|it| (it.name.to_owned(), it.example.into())).collect())
    }

    // ANCHOR: candidates
    /// The indexes that could serve it. Columns that are compared with `=` come first: all rows with these values stand side by
    /// side, and within them the column of the range or of the order decides.
    pub fn candidates(&self) -> Vec<Index> {
        let index = |path: &Path| {
            let keys = path.equal.iter().copied().chain(path.then.map(Key::Column));
            let keys: Vec<_> = keys.collect();
            Index { kind: path.kind, status: path.status, ..Index::on(&keys) }
        };
        self.paths.iter().map(index).collect()
    }
    // ANCHOR_END: candidates
}

impl Takes {
    fn parse(self, value: &Json) -> std::result::Result<Value, &'static str> {
        let day = format_description!("[year]-[month]-[day]");
        match (self, value) {
            // PostgreSQL takes no NUL, and nobody looks for a text of this length.
            (Self::Text, Json::String(text)) if text.len() <= 1_000 && !text.contains('\0') => {
                Ok(Value::Text(text.clone()))
            }
            (Self::Date, Json::String(text)) => {
                Date::parse(text, day).map(Value::Date).map_err(|_| "must be a day as 2001-12-31")
            }
            (Self::Integer, Json::String(text)) => {
                text.parse().map(Value::Integer).map_err(|_| "must be a whole number")
            }
            (Self::Integer, Json::Number(number)) => {
                number.as_i64().map(Value::Integer).ok_or("must be a whole number")
            }
            (Self::Text, _) => Err("must be a text of at most 1000 bytes"),
            (Self::Date, _) => Err("must be a day as 2001-12-31"),
            (Self::Integer, _) => Err("must be a whole number"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_example_is_a_good_value() {
        for query in &QUERIES {
            assert!(query.examples().is_ok(), "{}", query.name);
        }
    }

    #[test]
    fn a_parameter_that_is_missing_unknown_or_of_a_wrong_type_is_named() {
        let query = Query::find("by_city_and_born").unwrap();
        for (params, field) in [
            (json!({ "city": "City 7" }), "params.born"),
            (json!({ "city": 7, "born": "2000-01-01" }), "params.city"),
            (json!({ "city": "a\0", "born": "2000-01-01" }), "params.city"),
            (json!({ "city": "City 7", "born": "2000-02-30" }), "params.born"),
            (json!({ "city": "City 7", "born": "2000-01-01", "x": 1 }), "params.x"),
        ] {
            let params = serde_json::from_value(params).unwrap();
            let Err(Error::Invalid(errors)) = query.values(&params) else { panic!("{params:?}") };
            assert_eq!(errors[0].field, field);
        }
    }

    #[test]
    fn equality_comes_first_and_the_range_last() {
        let query = Query::find("by_city_born_since").unwrap();
        assert_eq!(query.candidates(), [Index::on(&[Key::Column(CITY), Key::Column(BORN)])]);
    }
}
