//! Which crates does the workspace have, and which of them are answers? As cargo and the guide know it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

use crate::modules::Crate;

#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
}

/// A member of the workspace, as `cargo metadata` describes it.
#[derive(Deserialize)]
pub struct Package {
    pub name: String,
    pub dependencies: Vec<Dependency>,
    pub targets: Vec<Target>,
}

#[derive(Deserialize)]
pub struct Dependency {
    pub name: String,
}

/// A crate of a package: the library, the program or a test.
#[derive(Deserialize)]
pub struct Target {
    pub src_path: PathBuf,
}

impl Package {
    /// Whether the guide lists it as an answer.
    pub fn is_answer(&self) -> bool {
        guide::answers().iter().any(|answer| answer.name == self.name)
    }
}

/// Every member of the workspace.
pub fn packages() -> anyhow::Result<Vec<Package>> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(lab::stack::workspace())
        .output()
        .context("cargo cannot be run")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let Metadata { packages } = serde_json::from_slice(&output.stdout)?;
    Ok(packages)
}

/// Every crate of every member, read.
pub fn crates() -> anyhow::Result<Vec<Crate>> {
    let packages = packages()?;
    let targets = packages.iter().flat_map(|package| {
        package.targets.iter().map(|target| Crate::read(&package.name, &target.src_path))
    });
    targets.collect()
}

/// The libraries of the answers, read, with the answers' names.
pub fn answers() -> anyhow::Result<Vec<(&'static str, Crate)>> {
    let read = |answer: lab::Answer| {
        let root = Path::new(answer.folder).join("src/lib.rs");
        Ok((answer.name, Crate::read(answer.name, &root)?))
    };
    guide::answers().into_iter().map(read).collect()
}
