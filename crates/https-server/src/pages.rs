//! What can still be seen when nothing can be read? How long an answer is, unless all are equally long.

/// What the pages are about, and how many lines each has. Who reads which is nobody's business.
pub const TOPICS: [(&str, usize); 5] =
    [("sleep", 4), ("debts", 9), ("divorce", 15), ("pregnancy", 22), ("addiction", 30)];

/// The first page, which leads to the others.
pub fn home() -> String {
    let links = TOPICS.map(|(topic, _)| format!("<li><a href=\"/pages/{topic}\">{topic}</a>\n"));
    format!("<!doctype html>\n<title>Advice</title>\n<ul>\n{}</ul>\n", links.concat())
}

/// The page about this topic.
pub fn page(topic: &str) -> Option<String> {
    let (topic, lines) = TOPICS.iter().find(|(it, _)| *it == topic)?;
    let text = format!("<p>What people ask about {topic}, and what we answer.\n").repeat(*lines);
    Some(format!("<!doctype html>\n<title>{topic}</title>\n{text}"))
}

// ANCHOR: pad
/// Fills the page with spaces up to a multiple of this many bytes; 0 leaves it as it is. TLS encrypts what is said, and
/// not how much.
pub fn pad(mut page: String, to: usize) -> String {
    let missing = page.len().checked_next_multiple_of(to).map_or(0, |whole| whole - page.len());
    page.extend(std::iter::repeat_n(' ', missing));
    page
}
// ANCHOR_END: pad

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn pages_differ_in_length_until_they_are_padded() {
        let lengths = |to| {
            TOPICS.iter().map(|it| pad(page(it.0).unwrap(), to).len()).collect::<BTreeSet<_>>()
        };
        assert_eq!(lengths(0).len(), 5);
        assert_eq!(lengths(4_096), [4_096].into());
        assert_eq!(pad("abc".to_owned(), 3), "abc");
        assert_eq!(page("weather"), None);
    }
}
