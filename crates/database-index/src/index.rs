//! Which indexes may be built? Everything in one is chosen from a list. No text of a client becomes a part of a statement,
//! except a name, and that is checked and quoted.

use edge::Mistakes;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What a column holds, as far as it decides which kinds of index fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    /// Text.
    Text,
    /// A number, a date or a time: it has an order.
    Ordered,
    /// A list of texts.
    List,
}

/// A column of `users`. There are no others than those in [`COLUMNS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// As the table has it.
    pub name: &'static str,
    holds: Holds,
}

const fn column(name: &'static str, holds: Holds) -> Column {
    Column { name, holds }
}

/// The columns that the queries use.
pub const ID: Column = column("id", Holds::Ordered);
/// An address.
pub const EMAIL: Column = column("email", Holds::Text);
/// A name.
pub const NAME: Column = column("name", Holds::Text);
/// One of a hundred.
pub const CITY: Column = column("city", Holds::Text);
/// A day.
pub const BORN: Column = column("born", Holds::Ordered);
/// One of two.
pub const STATUS: Column = column("status", Holds::Text);
/// A few words.
pub const TAGS: Column = column("tags", Holds::List);
/// Of any length.
pub const NOTES: Column = column("notes", Holds::Text);
/// A foreign key.
pub const REFERRED_BY: Column = column("referred_by", Holds::Ordered);
/// A time.
pub const CREATED_AT: Column = column("created_at", Holds::Ordered);
/// All of them.
pub const COLUMNS: [Column; 10] =
    [ID, EMAIL, NAME, CITY, BORN, STATUS, TAGS, NOTES, REFERRED_BY, CREATED_AT];

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
    /// From each three letters of a text to its rows: `like '%x%'`.
    Trigram,
    /// The least and the greatest value of each run of pages: for columns in the order of the table.
    Brin,
}

/// What an index is ordered by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A column.
    Column(Column),
    /// `lower(column)`.
    Lower(Column),
    /// `column::numeric`.
    Numeric(Column),
}

/// The only condition of a partial index: rows with this status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Almost everybody.
    Active,
    /// One of a hundred.
    Blocked,
}

/// The name of an index.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize)]
pub struct Name(String);

impl Name {
    /// PostgreSQL cuts a name that is longer than 63 bytes.
    pub fn parse(text: &str) -> std::result::Result<Self, &'static str> {
        let usual = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let fits = text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_lowercase());
        let name = (fits && text.chars().all(usual)).then(|| Self(text.to_owned()));
        name.ok_or("must be 1 to 63 of a-z, 0-9 and _, and begin with a letter")
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What a client sends with PUT.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `columns` or `expression`")]
pub struct IndexInput {
    kind: Option<Kind>,
    columns: Option<Vec<String>>,
    expression: Option<String>,
    include: Option<Vec<String>>,
    #[serde(rename = "where")]
    condition: Option<Condition>,
    unique: Option<bool>,
}

/// Which rows a partial index has.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an object with `status`")]
pub struct Condition {
    status: Status,
}

/// An index that may be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// How it is laid out.
    pub kind: Kind,
    /// In this order.
    pub keys: Vec<Key>,
    /// Carried along, not searched.
    pub include: Vec<Column>,
    /// Which rows are in it, if not all.
    pub status: Option<Status>,
    /// Whether no two rows may have the same keys.
    pub unique: bool,
}

impl IndexInput {
    // ANCHOR: parse
    /// Chooses the index that the client means. One that PostgreSQL would refuse, or that no query could use, is refused here,
    /// with words for the field.
    pub fn parse(self) -> Result<Index> {
        let mut mistakes = Mistakes::default();
        let kind = self.kind.unwrap_or_default();
        let columns = mistakes.note("columns", columns(&self.columns.unwrap_or_default()));
        let expression =
            mistakes.note("expression", self.expression.as_deref().map(expression).transpose());
        let known = columns.is_some() && expression.is_some();
        let columns = columns.into_iter().flatten().map(Key::Column);
        let keys: Vec<_> = expression.flatten().into_iter().chain(columns).collect();
        let include = mistakes.note("include", columns_of(kind, &self.include.unwrap_or_default()));
        let include = include.unwrap_or_default();
        let unique = self.unique.unwrap_or_default();
        mistakes.note("columns", if known { fits(kind, &keys) } else { Ok(()) });
        let again = include.iter().any(|it| keys.contains(&Key::Column(*it)));
        let twice = "names a column that is a key already";
        mistakes.note("include", if again { Err(twice) } else { Ok(()) });
        let one_kind = unique && kind != Kind::Btree;
        mistakes.note("unique", if one_kind { Err("needs the kind btree") } else { Ok(()) });
        let status = self.condition.map(|it| it.status);
        let index = Index { kind, keys, include, status, unique };
        mistakes.finish(Some(index)).map_err(Error::Invalid)
    }
    // ANCHOR_END: parse
}

type Parsed<T> = std::result::Result<T, String>;

/// The columns of these names, each once.
fn columns(names: &[String]) -> Parsed<Vec<Column>> {
    if names.len() > 32 {
        return Err("must be at most 32 columns".to_owned());
    }
    let mut found = Vec::new();
    for name in names {
        let column = COLUMNS.into_iter().find(|column| column.name == name);
        let column = column.ok_or_else(|| format!("the columns are {}", all_names()))?;
        if found.contains(&column) {
            return Err(format!("names {} twice", column.name));
        }
        found.push(column);
    }
    Ok(found)
}

fn columns_of(kind: Kind, names: &[String]) -> Parsed<Vec<Column>> {
    match kind {
        Kind::Btree => columns(names),
        _ if names.is_empty() => Ok(Vec::new()),
        _ => Err("needs the kind btree".to_owned()),
    }
}

fn all_names() -> String {
    COLUMNS.map(|column| column.name).join(", ")
}

/// `lower(column)` or `numeric(column)`.
fn expression(text: &str) -> Parsed<Key> {
    let texts = COLUMNS.into_iter().filter(|column| column.holds == Holds::Text);
    let mut keys = texts.map(|column| (format!("lower({})", column.name), Key::Lower(column)));
    let key = keys.find(|(words, _)| *words == text).map(|(_, key)| key);
    let key = key.or_else(|| (text == "numeric(id)").then_some(Key::Numeric(ID)));
    key.ok_or_else(|| "must be lower(…) of a text, or numeric(id)".to_owned())
}

/// Whether this kind of index can serve a query with these keys.
fn fits(kind: Kind, keys: &[Key]) -> Parsed<()> {
    let holds = |key: &Key| match key {
        Key::Column(column) => column.holds,
        Key::Lower(_) => Holds::Text,
        Key::Numeric(_) => Holds::Ordered,
    };
    let all = |fit: &[Holds]| keys.iter().all(|key| fit.contains(&holds(key)));
    let words = match kind {
        _ if keys.is_empty() => "name a column, or an expression",
        Kind::Btree | Kind::Brin if !all(&[Holds::Text, Holds::Ordered]) => "for tags take gin",
        Kind::Hash if keys.len() != 1 => "a hash index has one column",
        Kind::Hash if !all(&[Holds::Text, Holds::Ordered]) => "for tags take gin",
        Kind::Gin if !all(&[Holds::List]) => "gin is for tags",
        Kind::Trigram if !all(&[Holds::Text]) => "trigram is for texts",
        _ => return Ok(()),
    };
    Err(words.to_owned())
}

impl Index {
    /// A B-tree over these keys.
    pub fn on(keys: &[Key]) -> Self {
        let keys = keys.to_vec();
        Self { kind: Kind::Btree, keys, include: Vec::new(), status: None, unique: false }
    }

    // ANCHOR: statement
    /// The statement that makes it; `how` is empty, or `concurrently`. Its words are ours: they come from the lists above.
    pub fn statement(&self, how: &str, name: &Name) -> String {
        let unique = if self.unique { "unique " } else { "" };
        let method = match self.kind {
            Kind::Btree => "btree",
            Kind::Hash => "hash",
            Kind::Gin | Kind::Trigram => "gin",
            Kind::Brin => "brin",
        };
        let class = if self.kind == Kind::Trigram { " gin_trgm_ops" } else { "" };
        let keys: Vec<_> = self.keys.iter().map(|key| format!("{}{class}", key.words())).collect();
        let mut sql = format!(r#"create {unique}index {how} "{}" on users"#, name.as_str());
        sql += &format!(" using {method} ({})", keys.join(", "));
        if !self.include.is_empty() {
            let include: Vec<_> =
                self.include.iter().map(|it| format!(r#""{}""#, it.name)).collect();
            sql += &format!(" include ({})", include.join(", "));
        }
        match self.status {
            Some(Status::Active) => sql + " where status = 'active'::text",
            Some(Status::Blocked) => sql + " where status = 'blocked'::text",
            None => sql,
        }
    }
    // ANCHOR_END: statement

    /// Whether the catalogue's text of an index says the same, whatever its name, its quotes and its capitals.
    pub fn is_defined_by(&self, definition: &str) -> bool {
        let what = |text: &str| {
            let text = text.to_lowercase().replace('"', "");
            let unique = text.starts_with("create unique ");
            text.split_once(" using ").map(|(_, rest)| (unique, rest.to_owned()))
        };
        what(definition) == what(&self.statement("", &Name(String::new())))
    }

    /// A name for it.
    pub fn name(&self) -> String {
        let keys = self.keys.iter().map(|key| match key {
            Key::Column(column) => column.name.to_owned(),
            Key::Lower(column) => format!("lower_{}", column.name),
            Key::Numeric(column) => format!("numeric_{}", column.name),
        });
        let kind = match self.kind {
            Kind::Btree => None,
            Kind::Hash => Some("hash"),
            Kind::Gin => Some("gin"),
            Kind::Trigram => Some("trigram"),
            Kind::Brin => Some("brin"),
        };
        let status = self.status.map(|it| if it == Status::Active { "active" } else { "blocked" });
        let ends = [kind, status].into_iter().flatten().map(str::to_owned);
        ["idx".to_owned()].into_iter().chain(keys).chain(ends).collect::<Vec<_>>().join("_")
    }
}

impl Key {
    fn words(self) -> String {
        match self {
            Self::Column(column) => format!(r#""{}""#, column.name),
            Self::Lower(column) => format!(r#"lower("{}")"#, column.name),
            Self::Numeric(column) => format!(r#"("{}"::numeric)"#, column.name),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn wrong(body: Value) -> Vec<String> {
        match serde_json::from_value::<IndexInput>(body).unwrap().parse() {
            Err(Error::Invalid(errors)) => errors.into_iter().map(|error| error.field).collect(),
            _ => Vec::new(),
        }
    }

    #[test]
    fn a_statement_holds_only_words_from_the_lists() {
        let body = json!({
            "columns": ["city", "born"], "include": ["name"], "where": { "status": "blocked" },
            "unique": true,
        });
        let index = serde_json::from_value::<IndexInput>(body).unwrap().parse().unwrap();
        assert_eq!(
            index.statement("concurrently", &Name::parse("idx").unwrap()),
            r#"create unique index concurrently "idx" on users using btree ("city", "born") include ("name") where status = 'blocked'::text"#
        );
    }

    #[test]
    fn what_cannot_be_an_index_is_refused_by_field() {
        for (body, fields) in [
            (json!({}), &["columns"][..]),
            (json!({ "columns": [] }), &["columns"]),
            (json!({ "columns": ["email); drop table users; --"] }), &["columns"]),
            (json!({ "columns": ["city", "city"] }), &["columns"]),
            (json!({ "columns": vec!["city"; 33] }), &["columns"]),
            (json!({ "columns": ["tags"] }), &["columns"]),
            (json!({ "kind": "gin", "columns": ["email"] }), &["columns"]),
            (json!({ "kind": "hash", "columns": ["email", "city"] }), &["columns"]),
            (json!({ "kind": "trigram", "columns": ["born"] }), &["columns"]),
            (json!({ "kind": "hash", "columns": ["email"], "unique": true }), &["unique"]),
            (json!({ "kind": "hash", "columns": ["email"], "include": ["name"] }), &["include"]),
            (json!({ "columns": ["email"], "include": ["email"] }), &["include"]),
            (json!({ "expression": "lower(born)", "columns": ["id"] }), &["expression"]),
            (json!({ "expression": "pg_sleep(9)", "columns": ["id"] }), &["expression"]),
            (json!({ "expression": "lower(email)" }), &[]),
            (json!({ "expression": "numeric(id)" }), &[]),
            (json!({ "columns": ["email"], "kind": null }), &[]),
        ] {
            assert_eq!(wrong(body.clone()), fields, "{body}");
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
