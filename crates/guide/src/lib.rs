//! The guide: the book with its live experiments.

/// Every answer that is written.
pub fn answers() -> Vec<lab::Answer> {
    vec![url_shortener::answer()]
}
