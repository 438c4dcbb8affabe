//! Is each exercise worth doing? With the real code its checks hold; with the gap it compiles and they fail; with a
//! plausible wrong solution the named check fails.
//!
//! It works on a copy of the workspace, so that nobody's files are touched; the copy shares the target folder,
//! so that little has to be compiled.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
};

use anyhow::{Context, bail, ensure};

use crate::{
    check::{self, Outcome},
    exercise::Exercise,
    gap,
};

/// Proves those exercises whose key begins like this.
pub fn prove(workspace: &Path, exercises: &[Exercise], key: &str) -> anyhow::Result<ExitCode> {
    let copy = copy(workspace)?;
    let mut good = true;
    let wanted = exercises.iter().filter(|exercise| exercise.key.to_string().starts_with(key));
    for exercise in wanted {
        match prove_one(&copy, workspace, exercise) {
            Ok(()) => println!("{}: proved", exercise.key),
            Err(error) => {
                good = false;
                println!("{}: {error:#}", exercise.key);
            }
        }
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The four proofs of one exercise.
fn prove_one(copy: &Path, workspace: &Path, exercise: &Exercise) -> anyhow::Result<()> {
    let place = exercise.path();
    let place = copy.join(place.strip_prefix(workspace)?);
    let real = fs::read_to_string(&place).with_context(|| place.display().to_string())?;
    let front = &exercise.front;
    let gapped = gap::cut(&real, &front.gap, &front.todo)?;
    let (wrong, caught_by) = exercise.wrong()?;
    let mistaken = gap::fill(&real, &front.gap, &wrong)?;
    let attempt = |code: &str| {
        fs::write(&place, code)?;
        let outcome = check::run(copy, exercise);
        fs::write(&place, &real)?;
        outcome
    };
    match attempt(&real)? {
        Outcome::Holds => {}
        other => bail!("with the real code: {other:?}"),
    }
    match attempt(&gapped)? {
        Outcome::Fails { .. } => {}
        other => bail!("with the gap: {other:?}"),
    }
    match attempt(&mistaken)? {
        Outcome::Fails { check, .. } => {
            ensure!(check == caught_by, "the wrong solution is caught by {check}, not {caught_by}");
        }
        other => bail!("with the wrong solution: {other:?}"),
    }
    Ok(())
}

/// Copies what git would: the files that it tracks and those that it does not ignore, as they are now.
fn copy(workspace: &Path) -> anyhow::Result<PathBuf> {
    let copy = workspace.join("target/practice/workspace");
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(workspace)
        .output()
        .context("git cannot be run")?;
    ensure!(listed.status.success(), "this is no git checkout");
    for file in String::from_utf8(listed.stdout)?.split('\0').filter(|file| !file.is_empty()) {
        let Ok(now) = fs::read(workspace.join(file)) else { continue };
        let to = copy.join(file);
        // One that did not change keeps its time, and cargo need not build it again.
        if fs::read(&to).is_ok_and(|before| before == now) {
            continue;
        }
        fs::create_dir_all(to.parent().context("a folder")?)?;
        fs::write(&to, now).with_context(|| to.display().to_string())?;
    }
    fs::create_dir_all(copy.join(".cargo"))?;
    // The copy uses the servers of the original.
    let target = workspace.join("target");
    let target = target.to_str().context("the path is not UTF-8")?;
    let config = format!(
        "[build]\ntarget-dir = {target:?}\n[env]\nSTACK_DIR = {:?}\n",
        format!("{target}/stack")
    );
    fs::write(copy.join(".cargo/config.toml"), config)?;
    Ok(copy)
}
