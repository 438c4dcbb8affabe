//! How do the chapters become a book? By mdBook, in this process, into memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    str::FromStr,
};

use anyhow::Context;
use base64::prelude::{BASE64_STANDARD, Engine};
use interview::subject::Subject;
use lab::{Answer, stack::workspace};
use mdbook_driver::{MDBook, config::Config};
use practice::exercise::Exercise;
use sha2::{Digest, Sha256};

use crate::{
    cards::Cards,
    catalogue, chapter, checks, diagram,
    fold::fold,
    languages, live, measured,
    mode::Mode,
    questions::{self, Level, QUESTIONS},
    reader::Reader,
    state::Standing,
};

/// The pages and everything that they load, by path, as mdBook made them.
#[derive(Debug)]
pub struct Book {
    /// File contents by path, without a slash in front.
    pub files: BTreeMap<String, Vec<u8>>,
    /// What is wrong with the book. Readers can still read it.
    pub problems: Vec<String>,
    /// The hashes of the scripts that mdBook writes into pages, as a content security policy names them.
    pub inline_scripts: String,
    /// What can be asked about the answers.
    pub subjects: Vec<Subject>,
    /// The files that the pages show, or tell to read, from the workspace's root.
    pub listed: BTreeSet<String>,
    /// The drawings of the designs, for the first page, by the answer's name.
    pictures: BTreeMap<String, String>,
    answers: Vec<Answer>,
    exercises: Vec<Exercise>,
}

/// The pages load nothing from other hosts, and readers cannot edit the code on them.
const CONFIG: &str = r#"
[book]
title = "Worked answers"
language = "en"
description = "Backend interview questions, each with an answer that runs and a proof on your own machine"

[build]
use-default-preprocessors = false

[output.html]
default-theme = "light"
preferred-dark-theme = "navy"
no-section-label = true
additional-css = ["guide.css"]
additional-js = ["guide.js"]

[output.html.playground]
runnable = false

[output.html.search]
boost-title = 4
limit-results = 20
use-boolean-and = true
"#;

impl Book {
    /// Makes the book.
    pub fn build(answers: Vec<Answer>) -> anyhow::Result<Self> {
        let parent = workspace().join("target/guide");
        fs::create_dir_all(&parent).with_context(|| parent.display().to_string())?;
        // A folder for each build: two guides may start at the same moment.
        let folder = tempfile::Builder::new().prefix("book-").tempdir_in(&parent)?;
        let mut problems = Vec::new();
        let subjects = subjects(&answers, &mut problems);
        let exercises = Exercise::all(&practice::workspace())?;
        let made_from = (&*answers, &*subjects, &*exercises);
        let pictures = write_source(folder.path(), made_from, &mut problems)?;
        MDBook::load_with_config(folder.path(), Config::from_str(CONFIG)?)?.build()?;
        let mut files = BTreeMap::new();
        read_all(&folder.path().join("book"), &mut PathBuf::new(), &mut files)?;
        let inline_scripts = inline_scripts(&files);
        let pages = files.iter().filter(|(path, _)| path.ends_with(".html"));
        let listed = pages
            .flat_map(|(_, page)| live::listed(&String::from_utf8_lossy(page)).collect::<Vec<_>>());
        let listed = listed.chain(subjects.iter().flat_map(Subject::code)).collect();
        let mut book = Self {
            files,
            problems,
            inline_scripts,
            subjects,
            listed,
            pictures,
            answers,
            exercises,
        };
        let links = checks::links(&book.all(Mode::Static));
        book.problems.extend(links);
        Ok(book)
    }

    /// A page as it is now, with the last results of its experiments; or any other file.
    pub fn file(&self, path: &str, mode: Mode) -> Option<Vec<u8>> {
        let file = self.files.get(path)?;
        let is_page = path.ends_with(".html");
        match std::str::from_utf8(file) {
            Ok(text) if is_page => {
                let page = live::fill(text, &self.answers, &self.exercises, mode);
                let page = if mode == Mode::Static { self.of_nobody(&page) } else { page };
                Some(page.into_bytes())
            }
            _ => Some(file.clone()),
        }
    }

    /// The inner part of the first page.
    pub fn contents(&self, reader: &Reader) -> anyhow::Result<String> {
        Ok(self.cards(&Standing::of(reader, &self.answers, &self.exercises)?, Mode::Live))
    }

    /// A part of a page with its experiments filled in.
    pub fn with_experiments(&self, part: &str) -> String {
        live::fill_experiments(part, &self.answers)
    }

    fn cards(&self, standing: &Standing, mode: Mode) -> String {
        let Self { answers, subjects, pictures, .. } = self;
        Cards { answers, subjects, pictures, mode }.html(standing, interview::now())
    }

    /// A page of a static book, which knows no reader.
    fn of_nobody(&self, page: &str) -> String {
        let mut page = page.to_owned();
        for element in ["mock-interview", "verdict-quiz", "star-stories"] {
            let words = "<p class=\"only-live\">This page works while the guide runs on your machine: <code>cargo \
                         run</code>. In a terminal: <code>cargo run -- interview</code> and <code>cargo run -- \
                         quiz</code>.</p>";
            page = page.replace(&format!("<{element}></{element}>"), words);
        }
        if page.contains(CONTENTS) {
            page = page.replace(CONTENTS, &self.cards(&Standing::of_nobody(), Mode::Static));
        }
        page
    }

    /// Every page as it is now, and every other file.
    pub fn all(&self, mode: Mode) -> BTreeMap<String, Vec<u8>> {
        let file = |path: &String| Some((path.clone(), self.file(path, mode)?));
        self.files.keys().filter_map(file).collect()
    }
}

/// Where the first page has its cards.
pub const CONTENTS: &str = "<guide-contents></guide-contents>";

/// Those answers that have an `interview.toml`.
fn subjects(answers: &[Answer], problems: &mut Vec<String>) -> Vec<Subject> {
    let mut subjects = Vec::new();
    for folder in answers.iter().map(|answer| Path::new(answer.folder)) {
        if folder.join("interview.toml").exists() {
            match Subject::read(folder) {
                Ok(subject) => subjects.push(subject),
                Err(error) => problems.push(format!("{error:#}")),
            }
        }
    }
    subjects
}

/// The first drawing of a chapter.
fn picture(drawn: &str) -> Option<String> {
    let from = drawn.find("<figure class=\"diagram\"")?;
    let end = "</figure>";
    let length = drawn[from..].find(end)? + end.len();
    Some(drawn[from..from + length].to_owned())
}

fn inline_scripts(files: &BTreeMap<String, Vec<u8>>) -> String {
    let pages = files.iter().filter(|(path, _)| path.ends_with(".html"));
    let hashes: BTreeSet<_> = pages
        .flat_map(|(_, page)| checks::inline_scripts(&String::from_utf8_lossy(page)))
        .map(|script| format!("'sha256-{}'", BASE64_STANDARD.encode(Sha256::digest(script))))
        .collect();
    hashes.into_iter().collect::<Vec<_>>().join(" ")
}

/// Writes what mdBook reads: the summary, the introduction, the chapters with their code. Returns the first drawing of
/// each chapter, by the answer's name.
fn write_source(
    folder: &Path,
    (answers, subjects, exercises): (&[Answer], &[Subject], &[Exercise]),
    problems: &mut Vec<String>,
) -> anyhow::Result<BTreeMap<String, String>> {
    let mut pictures = BTreeMap::new();
    let source = folder.join("src");
    fs::create_dir(&source)?;
    fs::write(source.join("SUMMARY.md"), summary(answers))?;
    fs::write(source.join("index.md"), include_str!("../book/introduction.md"))?;
    for (name, page) in [
        ("interview.md", include_str!("../book/interview.md")),
        ("quiz.md", include_str!("../book/quiz.md")),
        ("stories.md", include_str!("../book/stories.md")),
    ] {
        fs::write(source.join(name), page)?;
    }
    let languages_page = include_str!("../book/languages.md");
    let languages_page =
        chapter::with_code(languages_page, &workspace().join("crates/guide"), problems);
    fs::write(source.join("languages.md"), languages_page)?;
    fs::write(source.join("same-work.md"), languages::page(problems))?;
    fs::write(source.join("catalogue.md"), catalogue::page(answers, subjects, exercises))?;
    fs::write(source.join("measured.md"), measured::page(answers, problems))?;
    fs::write(folder.join("guide.css"), include_str!("../book/guide.css"))?;
    fs::write(folder.join("guide.js"), include_str!("../book/guide.js"))?;
    for answer in answers {
        let text = chapter::read(answer, problems);
        problems.extend(checks::chapter(answer, &text));
        // The table of calls is a file beside the cases, and a page of the book.
        let calls = format!("{}-calls.md", answer.name);
        let text = text.replace("(src/cases/calls.md)", &format!("({calls})"));
        let text = text.replace("(../guide/book/languages.md#", "(languages.md#");
        let mut drawing = Vec::new();
        let subject = subjects.iter().find(|it| it.name == answer.name);
        let short = subject.map_or("", |it| &it.sheet.in_45_seconds);
        let text = diagram::draw(&fold(&text, short), &mut drawing);
        problems.extend(drawing.iter().map(|it| format!("{}: chapter.md: {it}", answer.name)));
        pictures.extend(picture(&text).map(|picture| (answer.name.to_owned(), picture)));
        fs::write(source.join(format!("{}.md", answer.name)), text)?;
        fs::write(source.join(calls), answer.suite.page())?;
    }
    Ok(pictures)
}

/// The contents: all eighteen questions, and other answers. mdBook shows an entry without a page as a draft.
fn summary(answers: &[Answer]) -> String {
    let mut summary =
        "# Summary\n\n[The workbench](index.md)\n[The mock interview](interview.md)\n[The quiz](quiz.md)\n\
         [Your stories](stories.md)\n[Everything at a glance](catalogue.md)\n[Measured](measured.md)\n\
         [In Python and Node](languages.md)\n[The same work in three languages](same-work.md)\n"
            .to_owned();
    for level in Level::ALL {
        let _ = write!(summary, "\n# {}\n\n", level.name());
        for question in QUESTIONS.iter().filter(|question| question.level == level) {
            let answer = answers.iter().find(|answer| answer.name == question.answer);
            let page = answer.map(|answer| format!("{}.md", answer.name)).unwrap_or_default();
            let _ = writeln!(summary, "- [{}]({page})", question.title);
            if answer.is_some() {
                let _ = writeln!(summary, "  - [The table of calls]({}-calls.md)", question.answer);
            }
        }
    }
    let others = questions::others(answers);
    if !others.is_empty() {
        summary += "\n# Other questions\n\n";
    }
    for Answer { question, name, .. } in others {
        let _ = writeln!(summary, "- [{question}]({name}.md)");
        let _ = writeln!(summary, "  - [The table of calls]({name}-calls.md)");
    }
    summary
}

fn read_all(
    root: &Path,
    inner: &mut PathBuf,
    files: &mut BTreeMap<String, Vec<u8>>,
) -> anyhow::Result<()> {
    for entry in fs::read_dir(root.join(&*inner))? {
        let entry = entry?;
        inner.push(entry.file_name());
        if entry.file_type()?.is_dir() {
            read_all(root, inner, files)?;
        } else {
            files.insert(inner.to_string_lossy().into_owned(), fs::read(entry.path())?);
        }
        inner.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_book_has_no_problems() {
        let book = Book::build(crate::answers()).unwrap();
        assert_eq!(book.problems, Vec::<String>::new());
        assert!(book.files.contains_key("url-shortener.html"));
        for listed in ["crates/url-shortener/src/code.rs", "examples/python/url-shortener/app.py"] {
            assert!(book.listed.contains(listed), "{:?}", book.listed);
        }
    }
}
