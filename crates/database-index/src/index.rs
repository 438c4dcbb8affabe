//! Which indexes may be built? Everything in one is chosen from a list. No text of a client becomes a part of a statement,
//! except a name, and that is checked and quoted.

use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::error::{Error, Result};

// ANCHOR: lists
/// A column of `users`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the schema says what they are")]
pub enum Column {
    Id,
    Email,
    Name,
    City,
    Born,
    Status,
    Tags,
    Notes,
    ReferredBy,
    CreatedAt,
}

/// What may be indexed in place of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Expression {
    /// For a search in any case.
    #[serde(rename = "lower(email)")]
    LowerEmail,
    /// For a driver that sends `numeric`.
    #[serde(rename = "id::numeric")]
    IdAsNumeric,
}

/// Which rows a partial index has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// Almost all.
    #[serde(rename = "status = 'active'")]
    Active,
    /// One of a hundred.
    #[serde(rename = "status = 'blocked'")]
    Blocked,
}

/// How an index is laid out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// In order: equality, ranges, sorting.
    #[default]
    Btree,
    /// By hash: equality only.
    Hash,
    /// From each word of a list to its rows.
    Gin,
    /// From each three letters of a text to its rows: `like '%xyz%'`.
    Trigram,
    /// The three letters of texts in a tree, whose pages sum up those below: the most similar text.
    Gist,
    /// The least and the greatest value of each run of pages: for columns in the order of the table.
    Brin,
}
// ANCHOR_END: lists

/// An index, as a client asks for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, expecting = "an object with `columns` or `expression`")]
pub struct Index {
    /// How it is laid out.
    pub kind: Kind,
    /// Before the columns.
    pub expression: Option<Expression>,
    /// In this order.
    pub columns: Vec<Column>,
    /// Carried along, not searched.
    pub include: Vec<Column>,
    /// Which rows are in it, if not all.
    #[serde(rename = "where")]
    pub condition: Option<Condition>,
    /// Whether no two rows may have the same keys.
    pub unique: bool,
}

/// The name of an index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Name(String);

impl Name {
    /// PostgreSQL cuts a name that is longer than 63 bytes.
    pub fn parse(text: &str) -> Result<Self> {
        let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let fits = text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase());
        let name = (fits && text.chars().all(usual)).then(|| Self(text.to_owned()));
        name.ok_or_else(|| Error::invalid("name", "must be a letter, and up to 62 of a-z 0-9 _"))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Index {
    // ANCHOR: check
    /// Refuses an index that PostgreSQL would refuse, or that no query could use, with words for the field.
    pub fn check(self) -> Result<Self> {
        use Column::{City, Email, Name, Notes, Tags};
        let keys = self.columns.len() + usize::from(self.expression.is_some());
        let twice = |all: &[Column]| (1..all.len()).any(|n| all[..n].contains(&all[n]));
        let all = [&self.columns[..], &self.include].concat();
        let tags = self.columns.contains(&Tags);
        let texts = self.columns.iter().all(|it| [City, Email, Name, Notes].contains(it));
        let texts = texts && self.expression.is_none();
        let btree = self.kind == Kind::Btree;
        let (field, message) = match self.kind {
            _ if keys == 0 => ("columns", "name a column, or an expression"),
            _ if keys > 32 => ("columns", "must be at most 32"),
            _ if twice(&self.columns) => ("columns", "names a column twice"),
            _ if twice(&all) => ("include", "names a column twice, or a key"),
            _ if self.unique && !btree => ("unique", "needs the kind btree"),
            _ if !self.include.is_empty() && !btree => ("include", "needs the kind btree"),
            Kind::Btree | Kind::Hash | Kind::Brin if tags => ("columns", "for tags take gin"),
            Kind::Hash if keys > 1 => ("columns", "a hash index has one"),
            Kind::Gin if keys > 1 || !tags => ("columns", "gin is for tags"),
            Kind::Trigram | Kind::Gist if !texts => ("columns", "must be texts"),
            _ => return Ok(self),
        };
        Err(Error::invalid(field, message))
    }
    // ANCHOR_END: check

    // ANCHOR: statement
    /// The statement that makes it; `how` is empty, or `concurrently`. Its words are ours: they come from the lists above.
    pub fn statement(&self, how: &str, name: &Name) -> String {
        let quoted = |column: &Column| format!(r#""{}""#, word(column));
        let expression = self.expression.map(|it| format!("({})", word(it)));
        let keys = expression.into_iter().chain(self.columns.iter().map(quoted));
        let (method, class) = match self.kind {
            Kind::Trigram => ("gin".to_owned(), " gin_trgm_ops"),
            Kind::Gist => (word(Kind::Gist), " gist_trgm_ops"),
            kind => (word(kind), ""),
        };
        let keys: Vec<_> = keys.map(|key| key + class).collect();
        let unique = if self.unique { "unique " } else { "" };
        let mut sql = format!(r#"create {unique}index {how} "{}" on users"#, name.as_str());
        sql += &format!(" using {method} ({})", keys.join(", "));
        if !self.include.is_empty() {
            let include: Vec<_> = self.include.iter().map(quoted).collect();
            sql += &format!(" include ({})", include.join(", "));
        }
        if let Some(condition) = self.condition {
            sql += &format!(" where {}", word(condition));
        }
        sql
    }
    // ANCHOR_END: statement

    /// Whether the catalogue's text of an index says the same, whatever its name, its quotes and its capitals.
    pub fn is_defined_by(&self, definition: &str) -> bool {
        let what = |text: &str| {
            let signs = ['"', '(', ')', ' '];
            let text = text.to_lowercase().replace("::text", "").replace(signs, "");
            let unique = text.starts_with("createunique");
            text.split_once("using").map(|(_, rest)| (unique, rest.to_owned()))
        };
        what(definition) == what(&self.statement("", &Name(String::new())))
    }

    /// A name for it.
    pub fn name(&self) -> String {
        let kind = (self.kind != Kind::Btree).then(|| word(self.kind));
        let ends = kind.into_iter().chain(self.condition.map(word));
        let columns = self.columns.iter().chain(&self.include).map(word);
        let words = self.expression.map(word).into_iter().chain(columns);
        let words = words.chain(ends).collect::<Vec<_>>().join("_");
        let parts = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|it| !it.is_empty());
        format!("idx_{}", parts.collect::<Vec<_>>().join("_"))
    }
}

/// What a list calls one of its entries.
fn word(entry: impl Serialize) -> String {
    json!(entry).as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(body: Value) -> String {
        match serde_json::from_value::<Index>(body).unwrap().check() {
            Err(Error::Invalid(errors)) => errors[0].field.clone(),
            _ => String::new(),
        }
    }

    #[test]
    fn a_statement_holds_only_words_from_the_lists() {
        let body = json!({
            "expression": "lower(email)", "columns": ["city", "created_at"], "include": ["name"],
            "where": "status = 'blocked'", "unique": true,
        });
        let index = serde_json::from_value::<Index>(body).unwrap().check().unwrap();
        assert_eq!(
            index.statement("concurrently", &Name::parse("idx").unwrap()),
            r#"create unique index concurrently "idx" on users using btree ((lower(email)), "city", "created_at") include ("name") where status = 'blocked'"#
        );
        assert_eq!(index.name(), "idx_lower_email_city_created_at_name_status_blocked");
    }

    #[test]
    fn what_is_not_in_the_lists_is_no_index() {
        for body in [
            json!({ "columns": ["email); drop table users; --"] }),
            json!({ "columns": ["city"], "include": ["age"] }),
            json!({ "columns": ["city"], "kind": "btree (id)" }),
            json!({ "expression": "pg_sleep(9)" }),
            json!({ "columns": ["city"], "where": "true" }),
        ] {
            assert!(serde_json::from_value::<Index>(body.clone()).is_err(), "{body}");
        }
    }

    #[test]
    fn what_no_query_could_use_is_refused_by_field() {
        for (body, field) in [
            (json!({}), "columns"),
            (json!({ "columns": ["city", "city"] }), "columns"),
            (json!({ "columns": vec!["city"; 33] }), "columns"),
            (json!({ "columns": ["tags"] }), "columns"),
            (json!({ "kind": "gin", "columns": ["email"] }), "columns"),
            (json!({ "kind": "hash", "columns": ["email", "city"] }), "columns"),
            (json!({ "kind": "trigram", "columns": ["born"] }), "columns"),
            (json!({ "kind": "gist", "columns": ["born"] }), "columns"),
            (json!({ "kind": "gist", "columns": ["name"], "unique": true }), "unique"),
            (json!({ "kind": "hash", "columns": ["email"], "unique": true }), "unique"),
            (json!({ "kind": "hash", "columns": ["email"], "include": ["name"] }), "include"),
            (json!({ "columns": ["email"], "include": ["email"] }), "include"),
            (json!({ "expression": "lower(email)" }), ""),
            (json!({ "kind": "gin", "columns": ["tags"] }), ""),
        ] {
            assert_eq!(wrong(body.clone()), field, "{body}");
        }
    }

    #[test]
    fn a_name_needs_no_escaping() {
        let long = "a".repeat(64);
        for text in ["", "1", "_a", "A", "a b", "a\"; drop table users; --", "ä", "a\0", &long] {
            assert!(Name::parse(text).is_err(), "{text}");
        }
        assert!(Name::parse(&long[1..]).is_ok());
    }
}
