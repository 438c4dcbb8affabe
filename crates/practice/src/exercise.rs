//! What is an exercise? A few lines of Markdown in its answer's folder. The front matter says what is cut out of the
//! code, and which checks must pass when the gap is filled.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use serde::Deserialize;

/// One exercise.
#[derive(Clone, Debug)]
pub struct Exercise {
    /// Its name on the command line.
    pub key: Key,
    /// The front matter.
    pub front: Front,
    /// What the reader is asked to do, in Markdown.
    pub text: String,
    /// The answer's folder.
    pub folder: PathBuf,
}

/// `url-shortener/collision-retry`: the answer and the name of the file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The answer's name, which is its crate's.
    pub answer: String,
    /// The exercise's name, unique within the answer.
    pub name: String,
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.answer, self.name)
    }
}

/// The front matter, between the two `---` lines.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Front {
    /// A title of a few words.
    pub title: String,
    /// How long it takes a reader of the chapter: `15 minutes` to `an evening`.
    pub level: String,
    /// The file with the gap, from the answer's folder.
    pub file: PathBuf,
    /// The anchor whose functions lose their bodies.
    pub gap: String,
    /// The text of the `todo!` in their place.
    pub todo: String,
    /// The checks that must pass, the quickest first.
    pub checks: Vec<Check>,
    /// Hints, from a nudge to nearly the solution.
    pub hints: Vec<String>,
}

/// One check that must pass.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Check {
    /// A unit test of the answer: a part of its name.
    #[serde(default)]
    pub unit: Option<String>,
    /// An experiment of the answer with its parameters, as on the command line.
    #[serde(default)]
    pub experiment: Option<String>,
    /// What a failure means, for the reader.
    pub otherwise: String,
}

impl Check {
    /// Its name: the test, or the experiment without its parameters.
    pub fn name(&self) -> &str {
        let words = self.unit.as_deref().or(self.experiment.as_deref()).unwrap_or_default();
        words.split(' ').next().unwrap_or_default()
    }
}

impl Exercise {
    /// Every exercise of every answer under `workspace`, in the order of their names.
    pub fn all(workspace: &Path) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for folder in sorted(&workspace.join("crates"))? {
            all.extend(Self::of(&folder)?);
        }
        Ok(all)
    }

    /// Those of the answer in this folder; none if it has none.
    fn of(folder: &Path) -> anyhow::Result<Vec<Self>> {
        let exercises = folder.join("exercises");
        if !exercises.is_dir() {
            return Ok(Vec::new());
        }
        let texts = sorted(&exercises)?.into_iter();
        let texts = texts.filter(|path| path.extension().is_some_and(|ending| ending == "md"));
        let read =
            |path: PathBuf| Self::read(folder, &path).with_context(|| path.display().to_string());
        texts.map(read).collect()
    }

    fn read(folder: &Path, path: &Path) -> anyhow::Result<Self> {
        let name = |path: &Path| Some(path.file_stem()?.to_str()?.to_owned());
        let key =
            Key { answer: name(folder).context("a name")?, name: name(path).context("a name")? };
        let file = read_lines(path)?;
        let parts = file.strip_prefix("---\n").and_then(|file| file.split_once("\n---\n"));
        let (front, text) = parts.context("it does not begin with front matter between ---")?;
        let front: Front = serde_saphyr::from_str(front)?;
        ensure!(!front.checks.is_empty(), "it checks nothing");
        ensure!(front.hints.len() >= 2, "it has fewer than two hints");
        for check in &front.checks {
            if check.unit.is_some() == check.experiment.is_some() {
                bail!("a check is either a unit test or an experiment");
            }
        }
        Ok(Self { key, front, text: text.trim().to_owned(), folder: folder.to_owned() })
    }

    /// The file with the gap.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.front.file)
    }

    /// A plausible wrong solution that is kept beside the exercise: the code between the anchor's marks, and the name
    /// of the check that catches it.
    pub fn wrong(&self) -> anyhow::Result<(String, String)> {
        let path = self.folder.join("exercises").join(format!("{}.wrong.rs", self.key.name));
        let text = read_lines(&path).with_context(|| path.display().to_string())?;
        let (first, code) = text.split_once('\n').context("it has one line only")?;
        let caught = first.strip_prefix("// caught by: ");
        let caught = caught.context("its first line is not `// caught by: a check's name`")?;
        Ok((code.to_owned(), caught.to_owned()))
    }
}

/// Reads a file and converts its line ends to `\n`, in case a checkout has changed them.
fn read_lines(path: &Path) -> std::io::Result<String> {
    Ok(fs::read_to_string(path)?.replace("\r\n", "\n"))
}

/// The entries of this folder, sorted by name.
pub(crate) fn sorted(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let mut paths: Vec<_> =
        entries.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    paths.sort();
    Ok(paths)
}
