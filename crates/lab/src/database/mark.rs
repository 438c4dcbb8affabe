//! How do we know that a database is ours? It has a comment that only this code writes.
//!
//! The comment is in a catalog that all databases of a server share. So we can read it without connecting to the
//! database, and renaming keeps it.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::claim::is_sixteen_digits;

/// What the comment on every database of ours begins with. JSON follows, and nothing else.
const WORDS: &str = "worked-answers ";
/// PostgreSQL cuts longer names off without an error.
const LONGEST_NAME: usize = 63;

/// The comment on a database of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mark {
    pub(super) kind: Kind,
    /// `url-shortener`, or `saga-orchestrator/inventory` for one of several services of an answer.
    pub(super) of: String,
    /// When it was made, in seconds since 1970 by the server's clock.
    pub(super) made: i64,
    /// A fingerprint of the schema, for templates and their spare copies.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) schema: Option<String>,
}

/// What a database of ours is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Kind {
    /// One test or one experiment. It is dropped afterwards.
    Fresh,
    /// A copy of a template, made ahead.
    Spare,
    /// The source of copies.
    Template,
    /// The data of a reader in a served answer.
    Kept,
}

impl Mark {
    /// Parses a comment, if it is a mark.
    pub(super) fn parse(comment: &str) -> Option<Self> {
        serde_json::from_str(comment.strip_prefix(WORDS)?).ok()
    }

    /// Whether this marks the kept database of this answer, or of this part of an answer.
    pub(super) fn is_kept(&self, of: &str) -> bool {
        self.kind == Kind::Kept && self.of == of
    }

    /// Whether the database is older than this.
    pub(super) fn is_older_than(&self, age: Duration, now: i64) -> bool {
        u64::try_from(now - self.made).is_ok_and(|made_ago| made_ago > age.as_secs())
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let json = serde_json::to_string(self).map_err(|_| fmt::Error)?;
        write!(f, "{WORDS}{json}")
    }
}

/// A name that nothing else on the server has.
pub(super) fn random_name(kind: Kind) -> String {
    format!("{}{:016x}", prefix(kind), rand::random::<u64>())
}

/// The name of the template with this schema.
pub(super) fn template_name(schema: &str) -> String {
    format!("{}{schema}", prefix(Kind::Template))
}

/// The kind of database that a random name stands for. A kept database has a readable name. A database with a fresh
/// name may still be renamed to another kind.
pub(super) fn kind_of(name: &str) -> Option<Kind> {
    [Kind::Fresh, Kind::Spare, Kind::Template]
        .into_iter()
        .find(|&kind| name.strip_prefix(&prefix(kind)).is_some_and(is_sixteen_digits))
}

fn prefix(kind: Kind) -> String {
    let word = match kind {
        Kind::Fresh => "fresh",
        Kind::Spare => "spare",
        Kind::Template => "template",
        Kind::Kept => "kept",
    };
    format!("worked_answers_{word}_")
}

/// The words of an answer, behind the name of a given database if there is one, joined by `_`, as a name that needs no
/// quotes. Hyphens in an answer's name become `_`. If the name would be too long, or if another character had to be
/// replaced, the name ends in a fingerprint of the words.
pub(super) fn readable_name(given: Option<&str>, words: &[&str]) -> String {
    let after = |words: &str| given.map_or(words.to_owned(), |given| format!("{given}_{words}"));
    let plain = |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || it == '_';
    let whole = after(&words.join("_"));
    // Most answers have a hyphen in their name. A hyphen of the reader's counts: `my-shop` is not `my_shop`.
    let usual = after(&words.join("_").replace('-', "_"));
    if usual.len() <= LONGEST_NAME && usual.chars().all(plain) {
        return usual;
    }
    let mut name = usual.to_lowercase().replace(|it| !plain(it), "_");
    name.truncate(LONGEST_NAME - 17);
    format!("{name}_{}", crate::claim::fingerprint(&whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark() -> Mark {
        Mark { kind: Kind::Fresh, of: "url-shortener".into(), made: 1_000_000, schema: None }
    }

    #[test]
    fn a_comment_of_ours_is_read_and_no_other() {
        assert_eq!(Mark::parse(&mark().to_string()), Some(mark()));
        let template = Mark { kind: Kind::Template, schema: Some("0".repeat(16)), ..mark() };
        assert_eq!(Mark::parse(&template.to_string()), Some(template));
        for comment in [
            "",
            "worked-answers",
            "worked-answers are what I read",
            "worked-answers {}",
            r#"{"kind":"fresh","of":"url-shortener","made":1000000}"#,
            r#"worked-answers {"kind":"fresh","of":"url-shortener","made":1000000} mine"#,
            r#"Worked-answers {"kind":"fresh","of":"url-shortener","made":1000000}"#,
        ] {
            assert_eq!(Mark::parse(comment), None, "{comment:?}");
        }
    }

    #[test]
    fn only_a_full_name_says_that_it_is_random() {
        for kind in [Kind::Fresh, Kind::Spare, Kind::Template] {
            assert_eq!(kind_of(&random_name(kind)), Some(kind));
        }
        for name in [
            "fresh_produce",
            "fresh_url_shortener_0123456789abcdef",
            "worked_answers_fresh_",
            "worked_answers_fresh_0123456789abcde",
            "worked_answers_fresh_0123456789abcdef0",
            "worked_answers_fresh_0123456789ABCDEF",
            "worked_answers_fresh_0123456789abcdeg",
            "my_worked_answers_fresh_0123456789abcdef",
            "worked_answers_kept_0123456789abcdef",
        ] {
            assert_eq!(kind_of(name), None, "{name}");
        }
    }

    #[test]
    fn a_day_is_over_after_a_day_and_not_when_a_clock_goes_back() {
        let day = Duration::from_hours(24);
        assert!(mark().is_older_than(day, 1_000_000 + 86_401));
        assert!(!mark().is_older_than(day, 1_000_000 + 86_400));
        assert!(!mark().is_older_than(day, 0));
    }

    #[test]
    fn every_name_fits_and_none_is_taken_for_another() {
        let long = format!("{}-answer", "a".repeat(53));
        let longest = format!("{}_database", "x".repeat(54));
        let names = [
            readable_name(Some("shop"), &["url-shortener"]),
            readable_name(Some("shop"), &["saga-orchestrator", "inventory"]),
            readable_name(Some("my_shop"), &["url-shortener"]),
            readable_name(Some("my-shop"), &["url-shortener"]),
            readable_name(Some("my/shop"), &["url-shortener"]),
            readable_name(Some("Shop"), &["url-shortener"]),
            readable_name(Some("shöp"), &["url-shortener"]),
            readable_name(Some("sh\"p"), &["url-shortener"]),
            readable_name(Some("shop"), &[&long]),
            readable_name(Some("shop2"), &[&long]),
            readable_name(Some(&longest), &[&long]),
            readable_name(Some(&longest), &[&long, "part"]),
            template_name(&crate::claim::fingerprint(&long)),
            random_name(Kind::Fresh),
        ];
        assert_eq!(names[0], "shop_url_shortener");
        assert_eq!(names[1], "shop_saga_orchestrator_inventory");
        for (at, name) in names.iter().enumerate() {
            assert!(name.len() <= LONGEST_NAME, "{name}");
            assert!(name.bytes().all(|it| matches!(it, b'a'..=b'z' | b'0'..=b'9' | b'_')));
            assert!(!names[..at].contains(name), "{name} twice");
        }
    }
}
