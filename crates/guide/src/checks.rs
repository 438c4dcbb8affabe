//! What is wrong with the book? What a reader would stumble over: a part that is missing, an experiment that
//! does not exist, a link that leads nowhere.

use std::{collections::HashSet, sync::LazyLock};

use lab::Answer;
use regex::Regex;

use crate::book::Book;

/// The parts of every chapter, in this order.
const PARTS: [&str; 12] = [
    "The question",
    "Ask first",
    "Say it in two minutes",
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

/// A live experiment in a chapter's text.
pub static EXPERIMENT: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r#"<live-experiment answer="([^"]*)" name="([^"]*)">\s*</live-experiment>"#)
});

static LINK: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\s(?:href|src)="([^"]*)""#));
static ID: LazyLock<Regex> = LazyLock::new(|| pattern(r#"\sid="?([^"\s>]+)"#));

/// A pattern that is written in this file.
#[expect(clippy::expect_used, reason = "each is compiled by the tests")]
fn pattern(text: &str) -> Regex {
    Regex::new(text).expect("a pattern of our own")
}

/// What is wrong with an answer's chapter.
pub fn chapter(answer: &Answer, text: &str) -> Vec<String> {
    let mut problems = Vec::new();
    let parts: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    if parts != PARTS {
        problems.push(format!("its parts are {parts:?}, and should be {PARTS:?}"));
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
    problems.into_iter().map(|problem| format!("{}: chapter.md: {problem}", answer.name)).collect()
}

/// The links inside of the book that lead nowhere, and what would be loaded from outside.
pub fn links(book: &Book) -> Vec<String> {
    let mut problems = Vec::new();
    for path in book.files.keys().filter(|path| path.ends_with(".html")) {
        let Some(page) = page(book, path) else { continue };
        for found in LINK.captures_iter(&page) {
            let link = found[1].replace("&amp;", "&");
            let loads = found[0].trim_start().starts_with("src");
            if let Some(problem) = broken(book, path, &page, &link, loads) {
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

/// The page as a reader gets it, without what its scripts say.
fn page(book: &Book, path: &str) -> Option<String> {
    let page = book.file(path, crate::book::Mode::Static)?;
    Some(SCRIPT.replace_all(&String::from_utf8(page).ok()?, "").into_owned())
}

fn broken(book: &Book, path: &str, page: &str, link: &str, loads: bool) -> Option<&'static str> {
    if link.contains("://") {
        return loads.then_some("is loaded from another host");
    }
    let (target, fragment) = link.split_once('#').unwrap_or((link, ""));
    let target = match (target, path.rsplit_once('/')) {
        ("", _) => path.to_owned(),
        (target, _) if target.starts_with('/') => target.trim_start_matches('/').to_owned(),
        (target, Some((folder, _))) => format!("{folder}/{target}"),
        (target, None) => target.to_owned(),
    };
    let target = if target.is_empty() { "index.html" } else { &target };
    if !book.files.contains_key(target) {
        return Some("there is no such page");
    }
    if fragment.is_empty() {
        return None;
    }
    let other;
    let page = if target == path {
        page
    } else {
        other = self::page(book, target)?;
        &other
    };
    let ids: HashSet<_> = ID.captures_iter(page).map(|id| id[1].to_owned()).collect();
    (!ids.contains(fragment)).then_some("there is no such place on the page")
}
