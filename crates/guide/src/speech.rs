//! How does what is said in an interview look on a page?

use interview::{markdown, screen::Say, subject::command};
use lab::report::escaped;

use crate::diagram;

/// All pieces of a screen. The texts are from the chapter of `answer`.
pub fn all(says: &[Say], answer: &str) -> String {
    says.iter().map(|say| html(say, answer)).collect()
}

fn html(say: &Say, answer: &str) -> String {
    match say {
        Say::Text(text) => markdown::html(text, answer),
        Say::Interviewer(text) => {
            format!(
                "<blockquote class=\"interviewer\">{}</blockquote>",
                markdown::html(text, answer)
            )
        }
        Say::Own(words) => format!(
            "<div class=\"own\"><p class=\"whose\">You wrote</p><p class=\"words\">{}</p></div>",
            escaped(words)
        ),
        Say::List(lines) => {
            let lines =
                lines.iter().map(|line| format!("<li>{}</li>", markdown::html(line, answer)));
            format!("<ul>{}</ul>", lines.collect::<String>())
        }
        Say::Folded { summary, text } => format!(
            "<details class=\"follow-up\"><summary>{}</summary>{}</details>",
            escaped(summary),
            markdown::html(text, answer)
        ),
        Say::Diagram(source) => {
            let source: Vec<_> = source.lines().collect();
            // If it cannot be drawn, the chapter cannot be drawn either, and the book reports it.
            diagram::figure(&source).unwrap_or_default()
        }
        Say::Experiment { answer, name } => run_it(answer, name),
    }
}

/// The place where an experiment runs, and its command line.
pub fn run_it(answer: &str, name: &str) -> String {
    format!(
        "<p class=\"run-it\"><a href=\"{answer}.html#{answer}-{name}\">Run it now</a> \
         <code>{}</code></p>",
        escaped(&command(answer, name))
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_reader_wrote_is_escaped() {
        let html = all(&[Say::Own("<b>\nx".to_owned())], "sums");
        assert!(html.contains("&lt;b&gt;\nx"), "{html}");
    }

    #[test]
    fn a_longer_text_is_folded() {
        let says = Say::Folded { summary: "Ours".to_owned(), text: "*It*".to_owned() };
        let html = all(&[says], "sums");
        assert!(html.contains("<summary>Ours</summary><p><em>It</em></p>"), "{html}");
    }

    #[test]
    fn an_experiment_leads_to_its_place_in_the_chapter() {
        let html = run_it("sums", "many");
        assert!(html.contains("href=\"sums.html#sums-many\""), "{html}");
        assert!(html.contains("cargo run -- sums experiment many"), "{html}");
    }
}
