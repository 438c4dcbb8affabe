//! Does the guide run and show the current code? The tests copy an answer's folder, and replace cargo by a script that
//! records its arguments.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::StreamExt;
use guide::program::Programs;
use lab::Answer;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    guide_over_http::{Guide, element},
    support::{Outcome, eventually, tests},
};

tests![
    a_build_is_told_and_its_program_runs,
    code_that_does_not_compile_shows_the_compilers_words,
    code_that_is_changed_during_a_build_is_built_again,
    a_build_ends_with_its_page,
    without_cargo_the_guide_runs_the_answer_that_is_in_it,
    without_cargo_changed_code_is_refused,
    a_page_shows_the_code_as_it_is_now,
    a_result_of_other_code_is_marked,
    a_page_takes_milliseconds_and_few_bytes,
];

/// A copy of the URL shortener's folder, which a test may change, and the script in place of cargo.
pub struct Edited {
    root: TempDir,
}

impl Edited {
    pub fn new() -> anyhow::Result<Self> {
        let root = tempfile::tempdir()?;
        let crates = lab::stack::workspace().join("crates");
        for folder in ["url-shortener", "edge"] {
            copy(&crates.join(folder), &root.path().join(folder))?;
        }
        Ok(Self { root })
    }

    fn file(&self, path: &str) -> PathBuf {
        self.root.path().join("url-shortener").join(path)
    }

    fn answers(&self) -> anyhow::Result<Vec<Answer>> {
        let answers = guide::answers().into_iter();
        let mut answers: Vec<_> = answers.filter(|answer| answer.name == "url-shortener").collect();
        // Leaked: an answer's folder has to be `'static`.
        answers[0].folder = self.file("").to_str().context("a path")?.to_owned().leak();
        Ok(answers)
    }

    /// A guide whose cargo runs this script. `$program` is a program that cargo could have built: this executable.
    pub async fn guide(&self, cargo: &str) -> anyhow::Result<Guide> {
        let path = self.root.path().join("cargo");
        let program = std::env::current_exe()?;
        let (folder, program) = (self.root.path().display(), program.display());
        let script = format!("#!/bin/sh\ncd '{folder}'\nprogram='{program}'\n{cargo}\n");
        fs::write(&path, script)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        Guide::with(self.answers()?, Programs::BuiltBy(path.into())).await
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.root.path().join(name)).unwrap_or_default()
    }

    /// Opens a file, such as a pipe at which the script waits.
    pub fn write(&self, name: &str) -> Outcome {
        Ok(fs::write(self.root.path().join(name), "")?)
    }

    /// Changes a file as an editor does.
    fn change(&self, file: &str, from: &str, to: &str) -> Outcome {
        let file = self.file(file);
        let text = fs::read_to_string(&file)?;
        ensure!(text.contains(from), "{} has no {from}", file.display());
        Ok(fs::write(file, text.replace(from, to))?)
    }
}

fn copy(from: &Path, to: &Path) -> Outcome {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(path, to)?;
        }
    }
    Ok(())
}

/// Cargo's message at the end of a build that succeeds.
const BUILT: &str = r#"echo '{"reason":"compiler-artifact","target":{"name":"url-shortener"},"executable":"'$program'"}'"#;

async fn told(guide: &Guide) -> anyhow::Result<String> {
    let quick = json!({ "clients": 5, "rounds": 1 });
    Ok(guide.run("race", &quick).send().await?.text().await?)
}

async fn a_build_is_told_and_its_program_runs() -> Outcome {
    let copy = Edited::new()?;
    let script = format!("echo $@ > words; echo '   Compiling url-shortener' >&2; {BUILT}");
    let told = told(&copy.guide(&script).await?).await?;
    let place = |words: &str| told.find(words).with_context(|| format!("no {words}: {told}"));
    ensure!(place("event: building")? < place("event: piece")?, "{told}");
    place("\"label\":\"Compiling url-shortener\"")?;
    place("\"held\":true")?;
    let words = copy.read("words");
    // The guide is among the packages for the sake of the features, but only the answer's program is built.
    ensure!(words.contains("build --package guide --package url-shortener --bin url-shortener"));
    ensure!(words.contains("--release") != cfg!(debug_assertions), "{words}");
    let target = std::env::current_exe()?;
    let target =
        target.ancestors().find(|it| it.join("CACHEDIR.TAG").exists()).context("target")?;
    ensure!(words.contains(&format!("--target-dir {}", target.display())), "{words}");
    Ok(())
}

async fn code_that_does_not_compile_shows_the_compilers_words() -> Outcome {
    let copy = Edited::new()?;
    let script = "echo 'error[E0425]: cannot find `a<b>`' >&2; exit 101";
    let told = told(&copy.guide(script).await?).await?;
    let last = told.split("\n\n").filter(|it| it.contains("event: report")).collect::<String>();
    ensure!(
        last.contains("cannot find `a&lt;b&gt;`") && last.contains("does not compile"),
        "{told}"
    );
    ensure!(last.contains("\"held\":false") && !last.contains("verdict held"), "{told}");
    ensure!(!told.contains("event: piece"), "something ran: {told}");
    Ok(())
}

async fn code_that_is_changed_during_a_build_is_built_again() -> Outcome {
    let copy = Edited::new()?;
    // The first build is not over when the reader saves the file.
    let script = format!(
        "echo build >> builds
        if [ $(wc -l < builds) = 1 ]; then echo '// later' >> url-shortener/src/code.rs; fi
        {BUILT}"
    );
    let told = told(&copy.guide(&script).await?).await?;
    ensure!(copy.read("builds") == "build\nbuild\n", "{}", copy.read("builds"));
    ensure!(told.contains("\"held\":true"), "{told}");
    Ok(())
}

async fn a_build_ends_with_its_page() -> Outcome {
    if !cfg!(target_os = "linux") {
        return Err(lab::skip("it looks into /proc"));
    }
    let copy = Edited::new()?;
    // A compiler is a child of cargo's.
    let guide = copy.guide("sleep 600 & echo $! > compiler; wait").await?;
    let mut page = guide.run("race", &json!({})).send().await?.bytes_stream();
    page.next().await.context("it told nothing")??;
    let compiler = eventually("it compiles", async || {
        let pid = copy.read("compiler");
        Ok(pid.ends_with('\n').then(|| pid.trim().to_owned()))
    })
    .await?;
    drop(page);
    eventually("nothing runs any more", async || {
        let running: Value = guide.get("api/running").await?.json().await?;
        let stat = fs::read_to_string(format!("/proc/{compiler}/stat")).unwrap_or_default();
        // A zombie has ended, but nobody has collected its exit status.
        Ok((running.is_null() && (stat.is_empty() || stat.contains(") Z "))).then_some(()))
    })
    .await
}

async fn without_cargo_the_guide_runs_the_answer_that_is_in_it() -> Outcome {
    let programs = Programs::BuiltBy("/nowhere/cargo".into());
    let told = told(&Guide::with(guide::answers(), programs).await?).await?;
    ensure!(told.contains("\"held\":true"), "{told}");
    Ok(())
}

async fn without_cargo_changed_code_is_refused() -> Outcome {
    let copy = Edited::new()?;
    copy.change("src/code.rs", "//! ", "//!  ")?;
    let programs = Programs::BuiltBy("/nowhere/cargo".into());
    let told = told(&Guide::with(copy.answers()?, programs).await?).await?;
    ensure!(told.contains("\"held\":false") && told.contains("put cargo on the PATH"), "{told}");
    Ok(())
}

async fn a_page_shows_the_code_as_it_is_now() -> Outcome {
    let copy = Edited::new()?;
    let guide = Guide::with(copy.answers()?, Programs::This).await?;
    let page = async || anyhow::Ok(guide.get("url-shortener.html").await?.text().await?);
    ensure!(page().await?.contains("pub fn crc32_code"));
    copy.change("src/code.rs", "pub fn crc32_code", "pub fn another_code")?;
    let text = page().await?;
    ensure!(text.contains("pub fn another_code") && !text.contains("pub fn crc32_code"));
    copy.change("chapter.md", "## Break it", "## Break it\n\nGently.")?;
    ensure!(page().await?.contains("<p>Gently.</p>"));
    // It may show code of another crate.
    let shown = "```rust\n{{#include ../edge/src/email.rs}}\n```";
    copy.change("chapter.md", "Gently.", &format!("Gently.\n\n{shown}"))?;
    ensure!(page().await?.contains("pub struct Email"));
    copy.change("../edge/src/email.rs", "pub struct Email", "pub struct Mailbox")?;
    ensure!(page().await?.contains("pub struct Mailbox"));
    // The page says that a chapter cannot be read, and shows it again when it can.
    fs::rename(copy.file("chapter.md"), copy.file("away.md"))?;
    ensure!(page().await?.contains("This chapter cannot be read"));
    fs::rename(copy.file("away.md"), copy.file("chapter.md"))?;
    ensure!(page().await?.contains("<p>Gently.</p>"));
    Ok(())
}

async fn a_result_of_other_code_is_marked() -> Outcome {
    let copy = Edited::new()?;
    let guide = Guide::with(copy.answers()?, Programs::This).await?;
    // No other test here runs this experiment: the guide shows the last result, whoever made it.
    let quick = json!({ "clients": 4, "crowd": 16, "rounds": 1, "seconds": 0.2 });
    let told = guide.run("creates", &quick).send().await?.text().await?;
    ensure!(told.contains("\"held\":true"), "{told}");
    let creates = async || {
        let page = guide.get("url-shortener.html").await?.text().await?;
        Ok::<_, anyhow::Error>(element(&page, "creates")?.to_owned())
    };
    let before = creates().await?;
    ensure!(before.contains("verdict held") && !before.contains("before the code"), "{before}");
    copy.change("src/code.rs", "//! ", "//!  ")?;
    let after = creates().await?;
    ensure!(after.contains("Made before the code was changed"), "{after}");
    ensure!(!after.contains("verdict held"), "{after}");
    copy.change("src/code.rs", "//!  ", "//! ")?;
    ensure!(creates().await? == before, "what is undone has changed nothing");
    Ok(())
}

async fn a_page_takes_milliseconds_and_few_bytes() -> Outcome {
    let guide = Guide::start().await?;
    let chapters = guide::answers().into_iter().map(|answer| format!("{}.html", answer.name));
    for path in chapters.chain(["", "interview.html", "quiz.html"].map(str::to_owned)) {
        let bytes = guide.get(&path).await?.bytes().await?.len();
        ensure!(bytes <= 300_000, "{path:?} has {bytes} bytes");
    }
    for path in ["", "url-shortener.html"] {
        guide.get(path).await?;
        let mut fastest = Duration::MAX;
        // The fastest of a few, since other tests load the machine.
        for _ in 0..20 {
            let begun = Instant::now();
            guide.get(path).await?.bytes().await?;
            fastest = fastest.min(begun.elapsed());
        }
        eprintln!("fastest page {path:?}: {fastest:?}");
        ensure!(fastest < Duration::from_millis(50), "{path:?} took {fastest:?}");
    }
    Ok(())
}
