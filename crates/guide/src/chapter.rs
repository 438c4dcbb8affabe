//! How does the code that runs get into the book? By its anchors, each time the book is made.

use std::{fs, path::Path};

use lab::Answer;

/// An answer's chapter with its code put in, and what went wrong on the way.
pub fn read(answer: &Answer, problems: &mut Vec<String>) -> String {
    let folder = Path::new(answer.folder);
    match fs::read_to_string(folder.join("chapter.md")) {
        Ok(text) => with_code(&text, folder, problems),
        Err(error) => {
            problems.push(format!("{}: chapter.md: {error}", answer.name));
            format!("# {}\n\nThis chapter cannot be read.\n", answer.question)
        }
    }
}

/// Replaces each `{{#include path:anchor}}` with its code, and writes the file and the line above it.
///
/// mdBook can do this too, but it shows a missing anchor as an empty box. Here that must never happen.
pub fn with_code(text: &str, folder: &Path, problems: &mut Vec<String>) -> String {
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let include = line.trim().strip_prefix("{{#include ").and_then(|l| l.strip_suffix("}}"));
        let Some(include) = include else {
            lines.push(line.to_owned());
            continue;
        };
        match listing(include.trim(), folder) {
            Ok((first_line, code)) => {
                let path = from_root(include.split(':').next().unwrap_or_default(), folder);
                if let Some(fence) = lines.pop_if(|line| line.starts_with("```")) {
                    lines.push(format!("<p class=\"listing\">{path}, line {first_line}</p>\n"));
                    lines.push(fence);
                }
                lines.push(code);
            }
            Err(problem) => {
                lines.push(format!("!! {include}: {problem}"));
                problems
                    .push(format!("{}: {{{{#include {include}}}}}: {problem}", folder.display()));
            }
        }
    }
    lines.join("\n") + "\n"
}

/// A file of a crate, from the workspace's root: `crates/url-shortener/src/code.rs`. Code of another crate is
/// `../edge/src/lib.rs`, and a program in another language `../../examples/node/edge.mjs`.
fn from_root(path: &str, folder: &Path) -> String {
    let name = folder.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    if let Some(outside) = path.strip_prefix("../../") {
        return outside.to_owned();
    }
    match path.strip_prefix("../") {
        Some(other) => format!("crates/{other}"),
        None => format!("crates/{name}/{path}"),
    }
}

/// The first line of the code at `crates/ANSWER/FILE:ANCHOR`, from the workspace's root.
pub fn first_line(place: &str, root: &Path) -> Option<usize> {
    listing(place, root).ok().map(|(first, _)| first)
}

/// The lines between the anchor's marks, moved to the left margin, and the number of the first line. Without an anchor,
/// the whole file.
fn listing(include: &str, folder: &Path) -> Result<(usize, String), String> {
    let (path, anchor) = include.split_once(':').unwrap_or((include, ""));
    let file = fs::read_to_string(folder.join(path)).map_err(|error| error.to_string())?;
    if anchor.is_empty() {
        return Ok((1, file.trim_end().to_owned()));
    }
    let mut inside = false;
    let (mut first, mut ended) = (0, false);
    let mut code = Vec::new();
    for (number, line) in file.lines().enumerate() {
        if let Some(name) = mark(line, "ANCHOR:") {
            if name == anchor {
                (inside, first) = (true, number + 2);
            }
        } else if let Some(name) = mark(line, "ANCHOR_END:") {
            if inside && name == anchor {
                (inside, ended) = (false, true);
            }
        } else if inside {
            code.push(line);
        }
    }
    match (first, ended) {
        (0, _) => return Err("there is no such anchor".to_owned()),
        (_, false) => return Err("the anchor does not end".to_owned()),
        _ if code.iter().all(|line| line.trim().is_empty()) => {
            return Err("there is nothing between the marks".to_owned());
        }
        _ => {}
    }
    let indent = |line: &&str| line.len() - line.trim_start().len();
    let margin = code.iter().filter(|line| !line.trim().is_empty()).map(indent).min().unwrap_or(0);
    let code: Vec<_> = code.iter().map(|line| line.get(margin..).unwrap_or_default()).collect();
    Ok((first, code.join("\n")))
}

fn mark<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    Some(line.split_once(word)?.1.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text and the problems for an include of this file.
    fn include(file: &str, include: &str) -> (String, Vec<String>) {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("sums");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.rs"), file).unwrap();
        let mut problems = Vec::new();
        let text = with_code(
            &format!("Before\n\n```rust\n{{{{#include {include}}}}}\n```\n"),
            &folder,
            &mut problems,
        );
        (text, problems)
    }

    const FILE: &str = "fn a() {}\n    // ANCHOR: b\n    fn b() {\n        // ANCHOR: c\n        1\n        // ANCHOR_END: c\n    }\n    // ANCHOR_END: b\n// ANCHOR: empty\n\n// ANCHOR_END: empty\n// ANCHOR: open\nfn";

    #[test]
    fn code_stands_at_the_margin_without_marks_and_says_where_it_comes_from() {
        let (text, problems) = include(FILE, "a.rs:b");
        assert_eq!(
            text,
            "Before\n\n<p class=\"listing\">crates/sums/a.rs, line 3</p>\n\n```rust\nfn b() {\n    1\n}\n```\n"
        );
        assert!(problems.is_empty());
    }

    #[test]
    fn code_of_other_crates_and_languages_is_named_from_the_root() {
        for (path, from) in [
            ("src/a.rs", "crates/sums/src/a.rs"),
            ("../edge/src/lib.rs", "crates/edge/src/lib.rs"),
            ("../../examples/node/edge.mjs", "examples/node/edge.mjs"),
        ] {
            assert_eq!(from_root(path, Path::new("/home/me/crates/sums")), from);
        }
    }

    #[test]
    fn a_file_without_an_anchor_is_shown_whole() {
        let (text, problems) = include("fn a() {}\n\nfn b() {}\n", "a.rs");
        assert!(
            text.contains("a.rs, line 1") && text.contains("```rust\nfn a() {}\n\nfn b() {}\n```")
        );
        assert!(problems.is_empty());
    }

    #[test]
    fn what_cannot_be_shown_is_a_problem_that_names_it() {
        for (what, problem) in [
            ("a.rs:zzz", "no such anchor"),
            ("a.rs:open", "does not end"),
            ("a.rs:empty", "nothing between"),
            ("zzz.rs:b", "No such file"),
        ] {
            let (text, problems) = include(FILE, what);
            assert!(problems.len() == 1, "{what}: {problems:?}");
            assert!(problems[0].contains(problem) && problems[0].contains(what), "{problems:?}");
            assert!(text.contains(&format!("!! {what}")), "it is not shown: {text}");
        }
    }
}
