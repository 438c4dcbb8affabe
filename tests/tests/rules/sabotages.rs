//! Can a reader make every change that a sabotage names? `cargo practice prove` makes them, and sees the checks fail.

use std::{fs, path::Path};

use guide::answers;
use lab::Sabotage;

#[test]
fn every_experiment_names_a_sabotage_of_the_answers_own_code() {
    let mut faults = Vec::new();
    for answer in answers() {
        for experiment in &answer.experiments {
            let mut fault = |words: &str| {
                faults.push(format!("{} {}: {words}", answer.name, experiment.name));
            };
            if experiment.sabotages.is_empty() {
                fault("it names no sabotage");
            }
            for sabotage in &experiment.sabotages {
                if let Err(words) = is_possible(Path::new(answer.folder), sabotage) {
                    fault(&words);
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// The text stands once in the file, which is part of the answer itself, and it is not part of a unit test.
fn is_possible(answer: &Path, sabotage: &Sabotage) -> Result<(), String> {
    let Sabotage { file, replace, with, .. } = sabotage;
    let about_the_answer =
        ["src/experiments/", "src/cases/"].iter().any(|part| file.starts_with(part));
    // Of an answer about containers, these are parts too.
    let is_part =
        ["src/", "Dockerfile", "app/", "deploy/"].iter().any(|part| file.starts_with(part));
    if !is_part || about_the_answer || *file == "src/whiteboard.rs" {
        return Err(format!("{file} is no part of the answer itself"));
    }
    if replace == with {
        return Err(format!("it changes nothing in {file}"));
    }
    let text = fs::read_to_string(answer.join(file)).map_err(|error| format!("{file}: {error}"))?;
    let found = text.matches(replace).count();
    if found != 1 {
        return Err(format!("{file} has {replace:?} {found} times, not once"));
    }
    let tests = text.find("#[cfg(test)]").unwrap_or(text.len());
    match text.find(replace) {
        Some(at) if at > tests => Err(format!("{replace:?} is in the tests of {file}")),
        _ => Ok(()),
    }
}
