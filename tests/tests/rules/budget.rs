//! Can each answer be read in one sitting? An answer's own code has a limit, which keeps it to the core of the
//! question.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use guide::{
    example::Language,
    questions::{Level, QUESTIONS},
};

/// An answer has at most this many files.
const FILES: usize = 16;
/// A file has at most this many lines of code.
const LINES_OF_A_FILE: usize = 250;

/// A program in another language has at most two files, each of at most this many lines.
const LINES_ELSEWHERE: usize = 350;
/// Its whiteboard version has at most this many lines that are not blank.
const LINES_OF_A_WHITEBOARD: usize = 80;

/// An answer has at most this many lines of code.
fn limit(answer: &str) -> usize {
    // The question is for beginners, but the answer is a complete issuer of tokens.
    if answer == "jwt-auth" {
        return 1_400;
    }
    // The question is for beginners, but the answer is one shop in three stores.
    if answer == "sql-vs-nosql" {
        return 1_100;
    }
    // Five services, what has to be between them, and the way of spans to a collector: the question is about several
    // programs.
    if answer == "microservices" {
        return 1_400;
    }
    let question = QUESTIONS.iter().find(|question| question.answer == answer);
    match question.map_or(Level::Advanced, |question| question.level) {
        Level::Beginner => 900,
        Level::Intermediate => 1_200,
        Level::Advanced => 1_600,
    }
}

/// The answers that are not within the limits yet, each with its own limits on lines and files. This list may only get
/// shorter, and its numbers smaller.
const NOT_YET: [(&str, usize, usize); 0] = [];

#[test]
fn every_answer_fits_into_one_sitting() {
    let mut wrong = Vec::new();
    println!("{:<20} {:>13} {:>8} {:>13}", "answer", "lines", "files", "longest file");
    for answer in guide::answers() {
        let name = answer.name;
        let files = lines_of_code(&Path::new(answer.folder).join("src")).unwrap();
        let lines: usize = files.values().sum();
        let longest = files.values().copied().max().unwrap_or_default();
        let limit = limit(name);
        println!(
            "{name:<20} {lines:>5} of {limit:>4} {:>2} of {FILES} {longest:>6} of {LINES_OF_A_FILE}",
            files.len(),
        );
        let fits = lines <= limit && files.len() <= FILES;
        match NOT_YET.iter().find(|(listed, ..)| *listed == name) {
            None if !fits => wrong.push(format!("{name} is over its limit")),
            Some(_) if fits => wrong.push(format!("{name} fits: take it off the list NOT_YET")),
            Some((_, most, most_files)) if lines > *most || files.len() > *most_files => {
                wrong.push(format!("{name} has grown; it had {most} lines, {most_files} files"));
            }
            _ => {}
        }
        for (file, lines) in files.iter().filter(|(_, lines)| **lines > LINES_OF_A_FILE) {
            wrong.push(format!("{} has {lines} lines", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn only_answers_that_exist_are_not_within_the_limits_yet() {
    for (name, ..) in NOT_YET {
        assert!(guide::answers().iter().any(|answer| answer.name == name), "there is no {name}");
    }
}

#[test]
fn a_program_in_another_language_has_two_short_files() {
    let (mut programs, mut wrong) = (0, Vec::new());
    for answer in guide::answers() {
        for language in Language::EVERY.into_iter().filter(|it| it.has(answer.name, false)) {
            programs += 1;
            let folder = language.sources().join(answer.name);
            let mut files = 0;
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let text = fs::read_to_string(&path).unwrap();
                let is_whiteboard = path.file_stem() == Some(OsStr::new("whiteboard"));
                let (lines, most) = if is_whiteboard {
                    (text.lines().filter(|it| !it.trim().is_empty()).count(), LINES_OF_A_WHITEBOARD)
                } else {
                    files += 1;
                    (text.lines().count(), LINES_ELSEWHERE)
                };
                if lines > most {
                    wrong.push(format!("{} has {lines} lines", path.display()));
                }
            }
            if files > 2 {
                wrong.push(format!("{} has {files} files", folder.display()));
            }
        }
    }
    assert!(programs > 0, "there is no program");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The files of an answer with their lines of code: no blank lines, comments, tests, experiments and cases.
fn lines_of_code(source: &Path) -> anyhow::Result<BTreeMap<PathBuf, usize>> {
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(source).with_context(|| source.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().and_then(OsStr::to_str).unwrap_or_default();
        // The whiteboard version is a second answer to the same question, with a limit of its own.
        if ["experiments", "cases", "tests", "whiteboard"].contains(&name) {
            continue;
        }
        let comment = match path.extension().and_then(OsStr::to_str) {
            Some("rs") => "//",
            Some("lua") => "--",
            None if path.is_dir() => {
                files.extend(lines_of_code(&path)?);
                continue;
            }
            // A list of passwords is not code.
            _ => continue,
        };
        let text = fs::read_to_string(&path)?;
        // Unit tests are at the end of their file; clippy enforces it.
        let code = text.lines().take_while(|line| *line != "#[cfg(test)]").map(str::trim);
        let lines = code.filter(|line| !line.is_empty() && !line.starts_with(comment)).count();
        files.insert(path, lines);
    }
    Ok(files)
}
