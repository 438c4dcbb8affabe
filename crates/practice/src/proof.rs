//! Do the checks of each exercise work? With the real code they pass; with the gap the code compiles and they fail;
//! with a plausible wrong solution the named check fails. And can each experiment fail? With its [sabotage] it does.
//!
//! All this runs in a copy of the workspace, so that no file of the author is touched. The copy shares the target
//! folder, so that little has to be compiled.

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

/// The message after the author pressed Ctrl-C.
const STOPPED: &str = "stopped; what was proved before stays proved";

/// Proves the exercises and the experiments whose key begins with `key`: all of them if `every` is set, or else those
/// that have changed since their last proof. If the author stops it, the finished proofs are kept.
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
    // On standard error, because standard output lists what was proved.
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

/// Proves the sabotages of these experiments of one answer. Returns whether all are proved.
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

/// Those that have changed since they were proved, or were never proved.
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

/// First runs the checks of all these exercises of an answer on its real code, with one build; then tries the changed
/// code of each. Returns whether all are proved.
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

/// Checks that the exercise's checks pass with the real code.
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

/// Checks that the code with the gap compiles and fails, and that the named check catches the wrong solution.
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

/// Runs the checks on this code. An unchanged file is not written, so that cargo does not build it again.
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

/// Copies the files that git tracks or does not ignore, as they are now, to `target/<name>/workspace`. The copy shares
/// the target folder and the servers of the original.
pub fn copy(workspace: &Path, name: &str) -> anyhow::Result<PathBuf> {
    let copy = workspace.join("target").join(name).join("workspace");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace)
        .output()
        .context("git cannot be run")?;
    ensure!(listed.status.success(), "{} is not a git checkout", workspace.display());
    let listed = String::from_utf8(listed.stdout)?;
    // Git also lists files that were deleted if the deletion is not staged.
    let files: HashSet<_> =
        listed.split('\0').filter(|file| workspace.join(file).is_file()).collect();
    // Remove files from the copy that are no longer in the workspace.
    for old in files_below(&copy)? {
        let place = old.strip_prefix(&copy)?;
        let is_ours = place.starts_with(".cargo");
        if !is_ours && place.to_str().is_none_or(|place| !files.contains(place)) {
            fs::remove_file(&old).with_context(|| old.display().to_string())?;
            // Cargo takes an empty folder in `crates` for a crate without a manifest. One that is not empty stays.
            let folders = old.ancestors().skip(1).take_while(|folder| *folder != copy);
            for folder in folders {
                if fs::remove_dir(folder).is_err() {
                    break;
                }
            }
        }
    }
    for file in files {
        let mut now = fs::read(workspace.join(file)).with_context(|| file.to_owned())?;
        if file == "Cargo.toml" {
            now = with_another_version(&String::from_utf8(now)?, name).into_bytes();
        }
        let to = copy.join(file);
        // An unchanged file is not written, so that cargo does not build it again.
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

/// For cargo, crates at the same place in two workspaces are the same crate, so it would confuse the builds of the copy
/// and of the original. With another version they are two crates, and the dependencies are still shared.
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
        fs::create_dir_all(workspace.join("crates/goes/src")).unwrap();
        let goes = "crates/goes/src/lib.rs";
        for (name, text) in [(".gitignore", "target"), ("crates/stays.rs", ""), (goes, "")] {
            fs::write(workspace.join(name), text).unwrap();
        }
        git(&["add", "."]);
        let copied = copy(workspace, "practice").unwrap();
        assert!(copied.join(goes).is_file());
        fs::remove_file(workspace.join(goes)).unwrap();
        copy(workspace, "practice").unwrap();
        assert!(copied.join("crates/stays.rs").is_file());
        assert!(!copied.join("crates/goes").exists(), "git still lists its file");
    }
}
