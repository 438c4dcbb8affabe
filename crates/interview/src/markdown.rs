//! How is a piece of a chapter shown outside of the book? As plain text in a terminal, and as HTML on a page.

use pulldown_cmark::{CowStr, Event, Options, Parser, Tag, TagEnd, html::push_html};

/// The page of the answers in other languages, as a chapter writes it.
const LANGUAGES: &str = "../guide/book/languages.md";

/// The text without marks, links and comments. Code keeps its quotation marks; a paragraph ends with an empty line.
pub fn plain(markdown: &str) -> String {
    let mut text = String::new();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        match event {
            Event::Text(words) => text += &words,
            Event::Code(code) => text += &format!("`{code}`"),
            Event::SoftBreak | Event::HardBreak => text.push(' '),
            Event::End(TagEnd::Paragraph | TagEnd::Heading(_)) => text += "\n\n",
            Event::End(TagEnd::Item | TagEnd::TableRow | TagEnd::TableHead) => text.push('\n'),
            Event::End(TagEnd::TableCell) => text += "  ",
            _ => {}
        }
    }
    text.trim().to_owned()
}

/// Plain text as Markdown that shows it unchanged. What stands between backticks stays code.
pub fn literal(plain: &str) -> String {
    let mut markdown = String::new();
    let mut is_code = false;
    for c in plain.chars() {
        is_code ^= c == '`';
        if !is_code && r#"\*_[]<>&#~|"'-."#.contains(c) {
            markdown.push('\\');
        }
        markdown.push(c);
    }
    markdown
}

/// The same as HTML. Links lead to the chapter of `answer`, where the text stands. Elements in the text are left out.
pub fn html(markdown: &str, answer: &str) -> String {
    // The chapters have curly quotation marks.
    let options = Options::ENABLE_TABLES | Options::ENABLE_SMART_PUNCTUATION;
    let events = Parser::new_ext(markdown, options)
        .filter(|event| !matches!(event, Event::Html(_) | Event::InlineHtml(_)))
        .map(|event| match event {
            Event::Start(Tag::Link { link_type, dest_url, title, id }) => {
                let dest_url = from_elsewhere(&dest_url, answer);
                Event::Start(Tag::Link { link_type, dest_url, title, id })
            }
            other => other,
        });
    let mut html = String::new();
    push_html(&mut html, events);
    html
}

/// A link in a chapter, as another page has to write it.
fn from_elsewhere(link: &str, answer: &str) -> CowStr<'static> {
    let link = match link {
        "src/cases/calls.md" => format!("{answer}-calls.html"),
        link if link.starts_with('#') => format!("{answer}.html{link}"),
        link if link.starts_with(LANGUAGES) => link.replace(LANGUAGES, "languages.html"),
        link => link.to_owned(),
    };
    link.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str =
        "**Wrong**: takes 53 µs<!-- verify: ours --> in `a*b`,\nsee [`race`](#jwt-race)";

    #[test]
    fn a_link_leads_to_the_same_page_from_elsewhere() {
        for (link, from_elsewhere) in [
            ("src/cases/calls.md", "jwt-calls.html"),
            ("../guide/book/languages.md#jwt", "languages.html#jwt"),
        ] {
            let html = html(&format!("[here]({link})"), "jwt");
            assert!(html.contains(&format!("href=\"{from_elsewhere}\"")), "{html}");
        }
    }

    #[test]
    fn plain_text_has_no_marks() {
        assert_eq!(plain(TEXT), "Wrong: takes 53 µs in `a*b`, see `race`");
        assert_eq!(plain("one\n\ntwo"), "one\n\ntwo");
    }

    #[test]
    fn plain_text_with_marks_is_shown_unchanged() {
        for text in ["a*b*c and _d_", "[x](y) & <b> ~~no~~ | #1", r"back\slash", "`a*b` and `c_d`"]
        {
            assert_eq!(plain(&literal(text)), text);
            assert!(!html(&literal(text), "x").contains("<em>"), "{text}");
        }
        let text = "run it with --all ... now, don't wait";
        assert_eq!(html(&literal(text), "x"), format!("<p>{text}</p>\n"));
    }

    #[test]
    fn quotation_marks_on_a_page_are_curly() {
        let html = html("\"How do you add `\"a\"`?\"", "x");
        assert!(html.starts_with("<p>“How do you add <code>"), "{html}");
        assert!(html.ends_with("</code>?”</p>\n") && !html.contains("<code>“"), "{html}");
    }

    #[test]
    fn on_another_page_a_link_leads_back_to_the_chapter() {
        let html = html(TEXT, "jwt");
        assert!(html.contains("<a href=\"jwt.html#jwt-race\"><code>race</code></a>"), "{html}");
        assert!(!html.contains("verify"), "{html}");
    }

    #[test]
    fn an_element_in_the_text_does_not_reach_the_page() {
        assert!(!html("a <script>alert(1)</script> b", "x").contains("<script"));
    }
}
