//! Which text can be shown to people, or written to a log, as one line?

/// Whether the text is one printable line: nothing in it ends a line, moves the cursor or rings a bell.
/// U+2028 and U+2029 end lines too, in JavaScript and in many logs.
pub fn is_line(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_line_or_cannot_be_printed_is_no_line() {
        for bad in
            ["a\nb", "a\rb", "a\0b", "\u{7f}", "\u{85}", "\u{1b}[31m", "a\u{2028}b", "\u{2029}"]
        {
            assert!(!is_line(bad), "{bad:?}");
        }
        for good in ["", " ", "Ada", "Ł. Ω", "'; drop table users; --", "👩‍🚀", "e\u{301}"]
        {
            assert!(is_line(good), "{good:?}");
        }
    }
}
