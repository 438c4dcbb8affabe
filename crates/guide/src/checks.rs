//! What is wrong with the book? These checks find a missing part, an experiment that does not exist, and a link that
//! leads nowhere.

use std::{
    collections::{BTreeMap, HashSet},
    sync::LazyLock,
};

use lab::Answer;
use regex::Regex;
use url::Url;

use crate::{
    element::{EXERCISES, EXPERIMENT, pattern},
    numbers,
    record::Measured,
};

/// The parts of every chapter, in this order.
const PARTS: [&str; 13] = [
    "The question",
    "Ask first",
    "Say it in two minutes",
    "The whiteboard",
    "The textbook answer, checked",
    "The design",
    "The code",
    "Prove it",
    "Break it",
    "Scale it",
    "Follow-ups",
    "Extend it",
    "Sources",
];

static LINK: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\s(?:href|src)="([^"]*)""#));
static ID: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\sid="?([^"\s>]+)"#));

/// What is wrong with an answer's chapter.
pub fn chapter(answer: &Answer, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    let expected: Vec<_> = PARTS
        .into_iter()
        .filter(|part| *part != "The whiteboard" || answer.serve.has_whiteboard())
        .collect();
    if parts != expected {
        problems.push(format!("its parts are {parts:?}, and should be {expected:?}"));
    }
    let mut shown = Vec::new();
    for found in EXPERIMENT.captures_iter(text) {
        let (of, name) = (&found[1], &found[2]);
        if of != answer.name || answer.experiment(name).is_none() {
            problems.push(format!("there is no experiment {of} {name}"));
        }
        shown.push(name.to_owned());
    }
    if text.matches("<live-experiment").count() != shown.len() {
        problems.push("a <live-experiment> is not written as the others are".to_owned());
    }
    for experiment in &answer.experiments {
        let times = shown.iter().filter(|name| *name == experiment.name).count();
        if times != 1 {
            problems.push(format!("the experiment {} is shown {times} times", experiment.name));
        }
    }
    let lists: Vec<_> = EXERCISES.captures_iter(text).map(|found| found[1].to_owned()).collect();
    let has_exercises = std::path::Path::new(answer.folder).join("exercises").is_dir();
    if has_exercises && lists != [answer.name] {
        problems.push(format!("its exercises are listed by {lists:?}, not once by its own name"));
    }
    // If the record cannot be read, the page that shows it reports the problem.
    let measured = Measured::read(&Measured::path(answer)).unwrap_or_default();
    problems.extend(numbers::problems(text, &measured));
    problems.into_iter().map(|problem| format!("{}: chapter.md: {problem}", answer.name)).collect()
}

/// The links that lead nowhere, and everything that would be loaded from another host. `files` holds the pages as a
/// reader gets them, and everything that they load, by path.
pub fn links(files: &BTreeMap<String, Vec<u8>>) -> Vec<String> {
    let mut problems = Vec::new();
    let pages = files.keys().filter(|path| path.ends_with(".html"));
    let pages: BTreeMap<&str, String> = pages.map(|path| (&**path, page(files, path))).collect();
    // Collected once for each page, because many links lead to the same page.
    let ids = |page: &String| ID.captures_iter(page).map(|id| id[1].to_owned()).collect();
    let places: Places = pages.iter().map(|(path, page)| (*path, ids(page))).collect();
    for (path, page) in &pages {
        for found in LINK.captures_iter(page) {
            let link = found[1].replace("&amp;", "&");
            let loads = found[0].trim_start().starts_with("src");
            if let Some(problem) = broken(files, &places, path, &link, loads) {
                problems.push(format!("{path}: {link}: {problem}"));
            }
        }
    }
    problems
}

static SCRIPT: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?s)<script>(.*?)</script>"));

/// The scripts in a page that are not files of their own.
pub fn inline_scripts(page: &str) -> Vec<String> {
    SCRIPT.captures_iter(page).map(|script| script[1].to_owned()).collect()
}

/// A page without its inline scripts.
fn page(files: &BTreeMap<String, Vec<u8>>, path: &str) -> String {
    let page = String::from_utf8_lossy(&files[path]);
    SCRIPT.replace_all(&page, "").into_owned()
}

/// The places on each page that a link can lead to.
type Places<'a> = BTreeMap<&'a str, HashSet<String>>;

fn broken(
    files: &BTreeMap<String, Vec<u8>>,
    places: &Places,
    path: &str,
    link: &str,
    loads: bool,
) -> Option<&'static str> {
    // Resolves the link as a browser does, on a host that no link names.
    let here = Url::parse("http://book.invalid/").and_then(|root| root.join(path));
    let Ok(url) = here.and_then(|here| here.join(link)) else { return Some("is no link") };
    if url.host_str() != Some("book.invalid") {
        return loads.then_some("is loaded from another host");
    }
    let target = url.path().trim_start_matches('/');
    let target = if target.is_empty() { "index.html" } else { target };
    let fragment = url.fragment().unwrap_or_default();
    if !files.contains_key(target) {
        return Some("there is no such page");
    }
    let is_there = places.get(target).is_some_and(|ids| ids.contains(fragment));
    (!fragment.is_empty() && !is_there).then_some("there is no such place on the page")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shortener() -> Answer {
        crate::answers().into_iter().find(|answer| answer.name == "url-shortener").unwrap()
    }

    fn files(pages: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
        pages.iter().map(|(path, page)| ((*path).to_owned(), page.as_bytes().to_vec())).collect()
    }

    #[test]
    fn a_chapter_without_a_part_or_an_experiment_is_a_problem() {
        let text = std::fs::read_to_string(format!("{}/chapter.md", shortener().folder)).unwrap();
        assert!(chapter(&shortener(), &text).is_empty());
        for (good, bad, problem) in [
            ("## Break it", "## Break", "its parts are"),
            ("name=\"race\"", "name=\"rice\"", "no experiment url-shortener rice"),
            ("name=\"race\"", "name=\"crash\"", "the experiment race is shown 0 times"),
            ("name=\"crash\"", "name=\"race\"", "the experiment race is shown 2 times"),
            ("name=\"race\">", "name=race>", "not written as the others"),
        ] {
            let problems = chapter(&shortener(), &text.replace(good, bad));
            assert!(problems.iter().any(|found| found.contains(problem)), "{bad}: {problems:?}");
        }
    }

    #[test]
    fn a_link_that_leads_nowhere_is_a_problem() {
        let other = ("b/c.html", r#"<p id="there"><a href="../a.html#here">a</a></p>"#);
        let page = |link: &str| format!(r#"<p id=here><a href="{link}">x</a></p>"#);
        for good in ["b/c.html#there", "#here", "b/c.html", "https://example.com/", "/b/c.html"] {
            let problems = links(&files(&[("a.html", &page(good)), other]));
            assert!(problems.is_empty(), "{good}: {problems:?}");
        }
        for bad in ["b/d.html", "c.html", "#there", "b/c.html#here", "/c.html"] {
            let problems = links(&files(&[("a.html", &page(bad)), other]));
            assert!(problems.len() == 1 && problems[0].contains(bad), "{bad}: {problems:?}");
        }
    }

    #[test]
    fn what_would_be_loaded_from_another_host_is_a_problem() {
        let page = r#"<script src="https://cdn.example/a.js"></script>"#;
        let problems = links(&files(&[("a.html", page)]));
        assert!(problems.len() == 1 && problems[0].contains("another host"), "{problems:?}");
    }
}
