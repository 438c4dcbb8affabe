//! What is asked of the table? Queries with names, so that nobody sends us SQL, each with what could serve it.

use std::{collections::BTreeMap, sync::LazyLock};

use edge::Mistakes;
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use crate::error::{Error, Result};
use crate::index::{Column, Index};

/// A parameter, with a value for a first try, which also says of what type it is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Param {
    name: String,
    example: Json,
}

/// A way to find the rows: the index that would serve it is made of this.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Path {
    /// What is compared with `=`.
    equal: Vec<Column>,
    /// The column of a range, or of the order.
    then: Option<Column>,
    /// All but the columns.
    index: Index,
}

/// A query.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Query {
    /// In the URL.
    pub name: String,
    /// Why somebody asks this.
    pub purpose: String,
    /// The statement.
    pub sql: String,
    /// In the order of `$1`, `$2`.
    pub params: Vec<Param>,
    #[serde(skip_serializing)]
    served_by: Vec<Path>,
}

/// All queries. A test reads them, so a mistake in the file does not get far.
pub static QUERIES: LazyLock<Vec<Query>> =
    LazyLock::new(|| serde_json::from_str(include_str!("queries.json")).expect("our own queries"));

impl Query {
    /// The query of this name.
    pub fn find(name: &str) -> Result<&'static Self> {
        QUERIES.iter().find(|query| query.name == name).ok_or(Error::NOT_FOUND)
    }

    /// Values for a first try.
    pub fn examples(&self) -> BTreeMap<String, Json> {
        self.params.iter().map(|it| (it.name.clone(), it.example.clone())).collect()
    }

    /// The values in the order of the statement, as texts: the statement says of what type each is. All are there, and nothing
    /// else.
    pub fn values(&self, params: &BTreeMap<String, Json>) -> Result<Vec<String>> {
        let mut mistakes = Mistakes::default();
        for name in params.keys().filter(|name| self.params.iter().all(|it| it.name != **name)) {
            mistakes.note::<()>(&format!("params.{name}"), Err("is no parameter of this query"));
        }
        let mut values = Vec::new();
        for Param { name, example } in &self.params {
            let value = match (example, params.get(name)) {
                (_, Some(Json::String(text))) if !text.contains('\0') => Ok(text.clone()),
                (Json::Number(_), Some(Json::Number(number))) => Ok(number.to_string()),
                _ => Err(format!("must be such as {example}")),
            };
            values.extend(mistakes.note(&format!("params.{name}"), value));
        }
        mistakes.finish(Some(values)).map_err(Error::Invalid)
    }

    // ANCHOR: candidates
    /// The indexes that could serve it. Columns that are compared with `=` come first: all rows with these values stand side by
    /// side, and within them the column of the range or of the order decides.
    pub fn candidates(&self) -> Vec<Index> {
        let index = |path: &Path| {
            let columns = path.equal.iter().copied().chain(path.then).collect();
            Index { columns, ..path.index.clone() }
        };
        self.served_by.iter().map(index).collect()
    }
    // ANCHOR_END: candidates
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_query_can_be_tried_and_could_be_served() {
        for query in QUERIES.iter() {
            assert!(query.values(&query.examples()).is_ok(), "{}", query.name);
            for index in query.candidates() {
                assert!(index.check().is_ok(), "{}", query.name);
            }
        }
    }

    #[test]
    fn a_parameter_that_is_missing_unknown_or_of_a_wrong_type_is_named() {
        let query = Query::find("by_city_and_born").unwrap();
        for (params, field) in [
            (json!({ "city": "City 7" }), "params.born"),
            (json!({ "city": 7, "born": "2000-01-01" }), "params.city"),
            (json!({ "city": "a\0", "born": "2000-01-01" }), "params.city"),
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
        assert_eq!(query.candidates(), [Index::on(&[Column::City, Column::Born])]);
        let query = Query::find("blocked_lately").unwrap();
        assert!(query.candidates()[0].condition.is_some());
    }
}
