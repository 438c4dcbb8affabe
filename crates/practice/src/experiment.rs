//! Which experiments does an answer have? We find them by their files, so that we need not build an answer to see
//! whether something has changed.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;

use crate::exercise::{Key, sorted};

/// One experiment.
#[derive(Clone, Debug)]
pub struct Experiment {
    /// Its name on the command line.
    pub key: Key,
    /// The answer's folder.
    pub folder: PathBuf,
}

impl Experiment {
    /// Every experiment of every answer under `workspace`, in the order of their names.
    pub fn all(workspace: &Path) -> anyhow::Result<Vec<Self>> {
        let mut all = Vec::new();
        for folder in sorted(&workspace.join("crates"))? {
            let experiments = folder.join("src/experiments");
            if !experiments.is_dir() {
                continue;
            }
            let answer = folder.file_name().and_then(|name| name.to_str()).context("a name")?;
            for file in sorted(&experiments)? {
                if let Some(name) = declared_in(&file)? {
                    let key = Key { answer: answer.to_owned(), name };
                    all.push(Self { key, folder: folder.clone() });
                }
            }
        }
        Ok(all)
    }
}

/// The experiment that this file declares, if it declares one. The file is named after it.
pub fn declared_in(file: &Path) -> anyhow::Result<Option<String>> {
    if !file.is_file() {
        return Ok(None);
    }
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let name = file.file_stem().and_then(|name| name.to_str()).context("a name")?;
    Ok(text.contains("pub fn experiment() -> Experiment").then(|| name.replace('_', "-")))
}
