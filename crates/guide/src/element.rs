//! Which elements of our own can a chapter contain? mdBook leaves them unchanged, and [`live`](crate::live) fills them
//! in.

use std::sync::LazyLock;

use regex::Regex;

/// A live experiment: its answer and its name.
pub static EXPERIMENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"<live-experiment answer="([^"]*)" name="([^"]*)"></live-experiment>"#)
});

/// Where a chapter lists its exercises: the answer's name.
pub static EXERCISES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"<exercise-list answer="([^"]*)"></exercise-list>"#));

/// Compiles one of our patterns.
#[expect(clippy::expect_used, reason = "each is compiled by a test")]
pub fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of our own")
}
