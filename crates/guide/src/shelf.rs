//! Which book does a page come from? One made from the current files.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use lab::Answer;
use tokio::sync::Mutex;

use crate::{book::Book, example::Language};

/// When each file was last written, and its length. By strings, because paths are compared part by part, and this is done
/// for each page.
type Sources = BTreeMap<OsString, (SystemTime, u64)>;

/// Holds the book, and makes it again on the next request after a source has changed.
#[derive(Debug)]
pub struct Shelf {
    answers: Vec<Answer>,
    /// Locked while a book is made, so that requests for pages wait for it.
    current: Mutex<(Sources, Arc<Book>)>,
    /// When the first book was made, in milliseconds, plus how many were made afterwards.
    made: AtomicU64,
}

impl Shelf {
    /// Makes the first book.
    pub fn new(answers: Vec<Answer>) -> anyhow::Result<Self> {
        let sources = sources(&answers);
        let book = Arc::new(made(answers.clone())?);
        Ok(Self {
            answers,
            current: Mutex::new((sources, book)),
            made: AtomicU64::new(milliseconds()),
        })
    }

    /// The current book. If it cannot be made, the previous one.
    pub async fn book(&self) -> Arc<Book> {
        let mut current = self.current.lock().await;
        let sources = sources(&self.answers);
        if current.0 != sources {
            let answers = self.answers.clone();
            match tokio::task::spawn_blocking(|| made(answers)).await {
                Ok(Ok(book)) => {
                    current.1 = Arc::new(book);
                    self.made.fetch_add(1, Ordering::Relaxed);
                }
                Ok(Err(error)) => eprintln!("warning: the book cannot be made again: {error:#}"),
                Err(error) => eprintln!("warning: the book cannot be made again: {error}"),
            }
            // These were read before the build, so the next request sees later changes.
            current.0 = sources;
        }
        Arc::clone(&current.1)
    }
}

impl Shelf {
    /// Another number for each book, also for the books of another process, so that a page learns that it is old.
    pub fn number(&self) -> u64 {
        self.made.load(Ordering::Relaxed)
    }
}

fn milliseconds() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}

/// A book, with a warning for each of its problems.
pub fn made(answers: Vec<Answer>) -> anyhow::Result<Book> {
    let book = Book::build(answers)?;
    for problem in &book.problems {
        eprintln!("warning: the book: {problem}");
    }
    Ok(book)
}

/// The files that the book is made from.
fn sources(answers: &[Answer]) -> Sources {
    let mut folders = BTreeSet::new();
    for folder in answers.iter().map(|answer| Path::new(answer.folder)) {
        folders.extend(
            ["chapter.md", "interview.toml", "measured.json", "exercises", "src", "migrations"]
                .map(|it| folder.join(it)),
        );
        // A chapter may show code of `edge`. The set keeps this folder only once.
        folders.extend(folder.parent().map(|crates| crates.join("edge/src")));
    }
    folders.extend(Language::EVERY.map(Language::sources));
    let mut sources = Sources::new();
    for folder in folders {
        // If a file is being replaced just now, the next request looks again.
        let _ = look(folder, &mut sources);
    }
    sources
}

fn look(path: PathBuf, sources: &mut Sources) -> io::Result<()> {
    let found = fs::metadata(&path)?;
    if !found.is_dir() {
        sources.insert(path.into_os_string(), (found.modified()?, found.len()));
        return Ok(());
    }
    for entry in fs::read_dir(path)? {
        look(entry?.path(), sources)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_looked_at_once_also_what_all_answers_share() {
        let sources = sources(&crate::answers());
        let files: BTreeSet<_> =
            sources.keys().map(|path| Path::new(path).canonicalize().unwrap()).collect();
        assert_eq!(files.len(), sources.len());
        for name in ["edge/src/lib.rs", "url-shortener/chapter.md", "url-shortener/src/lib.rs"] {
            assert_eq!(files.iter().filter(|path| path.ends_with(name)).count(), 1, "{name}");
        }
    }
}
