//! Is each exercise worth doing? With the real code its checks hold; with the gap it compiles and they fail; with a
//! plausible wrong solution the named check fails. And can each experiment fail? With its [sabotage] it does.
//!
//! It works on a copy of the workspace, so that nobody's files are touched; the copy shares the target folder,
//! so that little has to be compiled.

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Instant,
};

use anyhow::{Context, bail, ensure};

use crate::{
    check::{self, Outcome},
    exercise::Exercise,
    experiment::Experiment,
    gap,
    process::Stop,
    proved::{Proof, files_below},
    sabotage,
};

/// Said when the author presses Ctrl-C.
const STOPPED: &str = "stopped; what was proved before stays proved";

/// Proves the exercises and the experiments whose key begins like this: every one, or those that have changed since
/// their last proof. What has been proved when the author stops it stays proved.
pub fn prove(
    workspace: &Path,
    exercises: &[Exercise],
    key: &str,
    every: bool,
    stop: &Stop,
) -> anyhow::Result<ExitCode> {
    let mut exercises = exercises.to_vec();
    let mut experiments = Experiment::all(workspace)?;
    exercises.retain(|exercise| exercise.key.to_string().starts_with(key));
    experiments.retain(|experiment| experiment.key.to_string().starts_with(key));
    ensure!(
        !exercises.is_empty() || !experiments.is_empty(),
        "no exercise and no experiment begins with {key}"
    );
    if !every {
        exercises = unproved("exercises", exercises, Proof::of_exercise)?;
        experiments = unproved("experiments", experiments, Proof::of_sabotages)?;
    }
    if exercises.is_empty() && experiments.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let copy = copy(workspace, "practice")?;
    let mut good = true;
    // On standard error: what was proved is on the other.
    eprintln!(
        "  building the answers in a copy of the workspace (the first time, this takes minutes) …"
    );
    for of_answer in exercises.chunk_by(|one, next| one.key.answer == next.key.answer) {
        good &= prove_exercises(&copy, workspace, of_answer, stop)?;
    }
    for of_answer in experiments.chunk_by(|one, next| one.key.answer == next.key.answer) {
        good &= prove_sabotages(&copy, of_answer, stop)?;
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The sabotages of experiments of one answer. Whether all are proved.
fn prove_sabotages(copy: &Path, experiments: &[Experiment], stop: &Stop) -> anyhow::Result<bool> {
    let name = &experiments.first().context("no experiment")?.key.answer;
    let answer = sabotage::Answer::build(copy, name, stop)?;
    let mut good = true;
    for experiment in experiments {
        ensure!(!stop.is_wanted(), STOPPED);
        let outcome = answer
            .prove(&experiment.key.name)
            .and_then(|()| Proof::of_sabotages(experiment).note(&answer.folder()));
        if let Err(error) = outcome {
            good = false;
            println!("{}: {error:#}", experiment.key);
        }
    }
    Ok(good)
}

/// Those that have changed since they were proved, or never were.
fn unproved<T>(what: &str, all: Vec<T>, proof: fn(&T) -> Proof) -> anyhow::Result<Vec<T>> {
    let count = all.len();
    let mut unproved = Vec::new();
    for one in all {
        if !proof(&one).is_noted()? {
            unproved.push(one);
        }
    }
    let proved = count - unproved.len();
    println!("{proved} of {count} {what} have not changed since they were proved");
    Ok(unproved)
}

/// All exercises of an answer with one build of its real code, then each of the changed ones. Whether all are proved.
fn prove_exercises(
    copy: &Path,
    workspace: &Path,
    exercises: &[Exercise],
    stop: &Stop,
) -> anyhow::Result<bool> {
    let mut good = true;
    let whole: Vec<_> =
        exercises.iter().map(|exercise| prove_whole(copy, workspace, exercise, stop)).collect();
    for (exercise, whole) in exercises.iter().zip(whole) {
        ensure!(!stop.is_wanted(), STOPPED);
        let begun = Instant::now();
        let outcome =
            whole.and_then(|()| prove_changed(copy, workspace, exercise, stop)).and_then(|()| {
                let answer = copy.join(exercise.folder.strip_prefix(workspace)?);
                Proof::of_exercise(exercise).note(&answer)
            });
        match outcome {
            Ok(()) => println!("{}: proved in {} s", exercise.key, begun.elapsed().as_secs()),
            Err(error) => {
                good = false;
                println!("{}: {error:#}", exercise.key);
            }
        }
    }
    Ok(good)
}

/// With the real code its checks hold.
fn prove_whole(
    copy: &Path,
    workspace: &Path,
    exercise: &Exercise,
    stop: &Stop,
) -> anyhow::Result<()> {
    let place = exercise.path();
    let real = fs::read_to_string(&place).with_context(|| place.display().to_string())?;
    match attempt(&copy.join(place.strip_prefix(workspace)?), &real, copy, exercise, stop)? {
        Outcome::Holds => Ok(()),
        other => bail!("with the real code: {other:?}"),
    }
}

/// With the gap it compiles and fails, and the wrong solution is caught by the check that is meant to.
fn prove_changed(
    copy: &Path,
    workspace: &Path,
    exercise: &Exercise,
    stop: &Stop,
) -> anyhow::Result<()> {
    let place = exercise.path();
    let real = fs::read_to_string(&place)?;
    let place = copy.join(place.strip_prefix(workspace)?);
    let front = &exercise.front;
    let gapped = gap::cut(&real, &front.gap, &front.todo)?;
    let (wrong, caught_by) = exercise.wrong()?;
    let mistaken = gap::fill(&real, &front.gap, &wrong)?;
    let outcomes = [&gapped, &mistaken].map(|code| attempt(&place, code, copy, exercise, stop));
    fs::write(&place, &real)?;
    let [with_gap, with_mistake] = outcomes;
    match with_gap? {
        Outcome::Fails { .. } => {}
        other => bail!("with the gap: {other:?}"),
    }
    match with_mistake? {
        Outcome::Fails { check, .. } => {
            ensure!(check == caught_by, "the wrong solution is caught by {check}, not {caught_by}");
        }
        other => bail!("with the wrong solution: {other:?}"),
    }
    Ok(())
}

/// Runs the checks on this code. What is there already keeps its time, and is not built again.
fn attempt(
    place: &Path,
    code: &str,
    copy: &Path,
    exercise: &Exercise,
    stop: &Stop,
) -> anyhow::Result<Outcome> {
    if fs::read_to_string(place)? != code {
        fs::write(place, code)?;
    }
    check::run(copy, exercise, check::PATIENCE, stop, |_| {})
}

/// Copies what git would, as it is now, to `target/<name>/workspace`: the files that git tracks and those that it
/// does not ignore. The copy shares the target folder and the servers of the original.
pub fn copy(workspace: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = workspace.join("target").join(name).join("workspace");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace)
        .output()
        .context("git cannot be run")?;
    ensure!(listed.status.success(), "this is no git checkout");
    let listed = String::from_utf8(listed.stdout)?;
    // Git lists also what was deleted and not staged.
    let files: HashSet<_> =
        listed.split('\0').filter(|file| workspace.join(file).is_file()).collect();
    // What is gone from the workspace goes from its copy too.
    for old in files_below(&copy)? {
        let place = old.strip_prefix(&copy)?;
        let is_ours = place.starts_with(".cargo");
        if !is_ours && place.to_str().is_none_or(|place| !files.contains(place)) {
            fs::remove_file(&old).with_context(|| old.display().to_string())?;
        }
    }
    for file in files {
        let mut now = fs::read(workspace.join(file)).with_context(|| file.to_owned())?;
        if file == "Cargo.toml" {
            now = with_another_version(&String::from_utf8(now)?, name).into_bytes();
        }
        let to = copy.join(file);
        // One that did not change keeps its time, and cargo need not build it again.
        if fs::read(&to).is_ok_and(|before| before == now) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::write(&to, now).with_context(|| to.display().to_string())?;
    }
    fs::create_dir_all(copy.join(".cargo"))?;
    let target = workspace.join("target");
    let target = target.to_str().context("the path is not UTF-8")?;
    let config = format!(
        "[build]\ntarget-dir = {target:?}\n[env]\nSTACK_DIR = {:?}\n",
        format!("{target}/stack")
    );
    fs::write(copy.join(".cargo/config.toml"), config)?;
    Ok(copy)
}

/// To cargo a crate at the same place of two workspaces is one crate, and it would take what was built of the copy
/// for what was built of the original. Another version makes it two, and the dependencies are still shared.
fn with_another_version(manifest: &str, name: &str) -> String {
    let another = format!("version = \"0.0.0-{name}\"");
    let lines = manifest
        .lines()
        .map(|line| if line.starts_with("version = ") { another.as_str() } else { line });
    lines.collect::<Vec<_>>().join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_deleted_goes_from_the_copy_staged_or_not() {
        let workspace = tempfile::tempdir().unwrap();
        let workspace = workspace.path();
        let git = |words: &[&str]| {
            let status = Command::new("git").args(words).current_dir(workspace).status();
            assert!(status.unwrap().success(), "git {words:?}");
        };
        git(&["init", "--quiet"]);
        for (name, text) in [(".gitignore", "target"), ("stays.rs", ""), ("goes.rs", "")] {
            fs::write(workspace.join(name), text).unwrap();
        }
        git(&["add", "."]);
        let copied = copy(workspace, "practice").unwrap();
        assert!(copied.join("goes.rs").is_file());
        fs::remove_file(workspace.join("goes.rs")).unwrap();
        copy(workspace, "practice").unwrap();
        assert!(copied.join("stays.rs").is_file());
        assert!(!copied.join("goes.rs").exists(), "git still lists it");
    }
}
