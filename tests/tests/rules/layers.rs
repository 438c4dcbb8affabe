//! Do the dependencies point one way? `guide` → answers → `lab` → `conform`, and everything may use `edge`. Most files
//! of an answer may not use `lab`, so that a reader can copy them and `edge` into a project of their own.

use crate::{
    modules::{Mention, Place},
    workspace::{self, Package},
};

/// The members of the workspace that this one may depend on; `None` if it may depend on all of them.
fn may_know(package: &Package) -> Option<&'static [&'static str]> {
    match &*package.name {
        "guide" | "tests" => None,
        "lab" => Some(&["conform", "edge"]),
        "conform" | "edge" | "interview" | "practice" => Some(&[]),
        _ if package.is_answer() => Some(&["conform", "edge", "lab"]),
        other => panic!("{other} is new, and no answer: write here which crates it may know"),
    }
}

#[test]
fn crates_depend_only_on_those_below_them() {
    let packages = workspace::packages().unwrap();
    for package in &packages {
        let Some(allowed) = may_know(package) else { continue };
        for Package { name: other, .. } in &packages {
            let depends = package.dependencies.iter().any(|dependency| dependency.name == *other);
            assert!(
                !depends || allowed.contains(&&**other),
                "{} depends on {other}; of the workspace it may use only {allowed:?}",
                package.name,
            );
        }
    }
}

/// The parts of an answer that may use `lab` and `conform`. They stay behind when the answer is copied.
const TRIES_IT: [&str; 2] = ["experiments", "cases"];

#[test]
fn an_answer_can_be_copied_without_its_experiments_and_cases() {
    let mut wrong = Vec::new();
    for (package, one) in workspace::answers().unwrap() {
        for Mention { from, to, at } in one.mentions() {
            let stays = from.first().is_none_or(|module| TRIES_IT.contains(&&**module));
            let needs = match to {
                Place::Outside(name) => ["lab", "conform"].contains(&&*name).then_some(name),
                Place::Module(path) => {
                    path.into_iter().next().filter(|module| TRIES_IT.contains(&&**module))
                }
            };
            if let Some(needs) = needs
                && !stays
            {
                wrong.push(format!("{package}'s {} uses {needs} in {at}\n", from.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "only lib.rs, main.rs and {TRIES_IT:?} may:\n{}", wrong.concat());
}
