//! How does a diagram become a drawing? Each fenced `mermaid` block becomes SVG, in the page's colours, when the book
//! is made. GitHub and other forges that show `chapter.md` draw the same block themselves.

use std::hash::{DefaultHasher, Hash, Hasher};

use lab::report::escaped;
use mermaid_rs_renderer::{
    DiagramKind, LayoutConfig, Theme, compute_layout, parse_mermaid_strict, render_svg,
};

use crate::flowchart;

/// Replaces each `mermaid` block of a chapter with its drawing.
pub fn draw(text: &str, problems: &mut Vec<String>) -> String {
    let mut drawn = String::with_capacity(text.len());
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line != "```mermaid" {
            drawn.push_str(line);
            drawn.push('\n');
            continue;
        }
        let source: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
        match figure(&source) {
            Ok(figure) => drawn.push_str(&figure),
            Err(problem) => {
                problems.push(format!("the diagram {:?}: {problem}", source.join(" / ")));
            }
        }
    }
    drawn
}

/// One drawing. For readers who cannot see it, it has a title, which Mermaid calls `accTitle`.
pub fn figure(source: &[&str]) -> Result<String, String> {
    let title = source.iter().find_map(|line| line.trim().strip_prefix("accTitle:"));
    let title = title.ok_or("it has no line `accTitle: what it shows`")?.trim();
    let source: Vec<_> =
        source.iter().filter(|line| !line.trim().starts_with("accTitle:")).copied().collect();
    let graph = parse_mermaid_strict(&source.join("\n")).map_err(|error| error.to_string())?.graph;
    let (theme, config) = (theme(), LayoutConfig::default());
    let mut layout = compute_layout(&graph, &theme, &config);
    if layout.kind == DiagramKind::Flowchart {
        flowchart::arrange(&mut layout, graph.direction)?;
    }
    let svg = render_svg(&layout, &theme, &config);
    // A blank line would end the HTML for Markdown.
    let svg: String = svg.lines().filter(|line| !line.trim().is_empty()).collect();
    let svg = with_names_of_its_own(&svg);
    let title = escaped(title);
    Ok(format!("<figure class=\"diagram\" role=\"img\" aria-label=\"{title}\">{svg}</figure>\n"))
}

/// Each drawing calls its first arrowhead `arrow-0`, but a page with several drawings needs a name for each.
fn with_names_of_its_own(svg: &str) -> String {
    let mut hasher = DefaultHasher::new();
    svg.hash(&mut hasher);
    let name = format!("d{:x}-", hasher.finish());
    svg.replace(" id=\"", &format!(" id=\"{name}")).replace("url(#", &format!("url(#{name}"))
}

/// The colours of the reader's theme, as variables of `guide.css`.
fn theme() -> Theme {
    let (text, line, box_) = ("var(--fg)", "var(--diagram-line)", "var(--diagram-box)");
    let clear = "transparent";
    Theme {
        font_family: "inherit".to_owned(),
        font_size: 14.0,
        primary_color: box_.to_owned(),
        primary_text_color: text.to_owned(),
        primary_border_color: line.to_owned(),
        line_color: line.to_owned(),
        secondary_color: box_.to_owned(),
        tertiary_color: box_.to_owned(),
        edge_label_background: "var(--bg)".to_owned(),
        cluster_background: clear.to_owned(),
        cluster_border: line.to_owned(),
        background: clear.to_owned(),
        sequence_actor_fill: box_.to_owned(),
        sequence_actor_border: line.to_owned(),
        sequence_actor_line: line.to_owned(),
        sequence_note_fill: "var(--diagram-note)".to_owned(),
        sequence_note_border: line.to_owned(),
        sequence_activation_fill: box_.to_owned(),
        sequence_activation_border: line.to_owned(),
        text_color: text.to_owned(),
        ..Theme::modern()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mermaid_block_becomes_a_drawing_with_a_title() {
        let text = "Before\n\n```mermaid\nflowchart LR\n  accTitle: A reaches <B>\n  a[Client] --> b[Server]\n```\n\nAfter\n";
        let mut problems = Vec::new();
        let drawn = draw(text, &mut problems);
        assert!(problems.is_empty(), "{problems:?}");
        assert!(drawn.starts_with("Before\n\n<figure") && drawn.ends_with("</figure>\n\nAfter\n"));
        assert!(drawn.contains("aria-label=\"A reaches &lt;B&gt;\"") && drawn.contains("Client"));
        assert!(drawn.contains("var(--fg)") && !drawn.contains("accTitle"), "{drawn}");
    }

    #[test]
    fn the_arrowheads_of_two_drawings_have_different_names() {
        let drawn = |to: &str| {
            figure(&["flowchart LR", "  accTitle: A", &format!("  a[One] --> b[{to}]")]).unwrap()
        };
        let ids = |drawn: &str| -> Vec<String> {
            drawn
                .split(" id=\"")
                .skip(1)
                .map(|it| it.split('"').next().unwrap().to_owned())
                .collect()
        };
        let (one, two) = (drawn("Two"), drawn("Three"));
        assert!(!ids(&one).is_empty() && ids(&one).iter().all(|id| !ids(&two).contains(id)));
        for used in one.split("url(#").skip(1).map(|it| it.split(')').next().unwrap()) {
            assert!(ids(&one).iter().any(|id| id == used), "{used} is not there: {one}");
        }
    }

    #[test]
    fn a_diagram_without_a_title_or_that_cannot_be_read_is_a_problem() {
        for source in ["flowchart LR\n  a --> b", "  accTitle: Nothing\nnonsense -->"] {
            let mut problems = Vec::new();
            draw(&format!("```mermaid\n{source}\n```\n"), &mut problems);
            assert_eq!(problems.len(), 1, "{source}: {problems:?}");
        }
    }
}
