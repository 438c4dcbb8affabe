//! Which exercises and experiments need no new proof? Those that have not changed since their last proof.
//!
//! Each answer's `exercises/proved.json` is committed. For each exercise, and for the sabotages of each experiment, it
//! holds a hash of everything that the proof depends on. A change of the support crates needs no new proof, because
//! their own tests cover them; `prove --all` proves everything.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::{
    exercise::Exercise,
    experiment::{Experiment, declared_in},
};

/// The prefix of an experiment's name in the record, because an exercise may have the same name.
const EXPERIMENT: &str = "experiments/";

/// One entry of the record: something that was proved, or has to be.
#[derive(Clone, Debug)]
pub struct Proof {
    /// The answer's folder.
    folder: PathBuf,
    name: String,
    /// The files that it depends on in addition to the answer's code, from the answer's folder.
    files: Vec<String>,
    /// The experiments that the proof runs. The files of other experiments do not matter.
    experiments: Vec<String>,
}

impl Proof {
    /// The proof that an exercise's checks catch what they should.
    pub fn of_exercise(exercise: &Exercise) -> Self {
        let (folder, name) = (exercise.folder.clone(), exercise.key.name.clone());
        let files = ["md", "wrong.rs"].map(|ending| format!("exercises/{name}.{ending}"));
        let checks = exercise.front.checks.iter().filter(|check| check.experiment.is_some());
        let experiments = checks.map(|check| check.name().to_owned()).collect();
        Self { folder, name, files: files.to_vec(), experiments }
    }

    /// The proof that an experiment's sabotages turn its checks red.
    pub fn of_sabotages(experiment: &Experiment) -> Self {
        Self {
            folder: experiment.folder.clone(),
            name: format!("{EXPERIMENT}{}", experiment.key.name),
            files: Vec::new(),
            experiments: vec![experiment.key.name.clone()],
        }
    }

    /// Whether nothing has changed since it was proved.
    pub fn is_noted(&self) -> anyhow::Result<bool> {
        Ok(self.read()?.get(&self.name) == Some(&self.fingerprint(&self.folder)?))
    }

    /// Records the proof, with the hash of this copy of the answer's folder. The original may have changed since.
    pub fn note(&self, copy: &Path) -> anyhow::Result<()> {
        let mut proved = self.read()?;
        proved.insert(self.name.clone(), self.fingerprint(copy)?);
        // Drop the entries of removed exercises and experiments.
        proved.retain(|name, _| self.is_there(name));
        let text = serde_json::to_string_pretty(&proved)? + "\n";
        let path = self.record();
        fs::create_dir_all(self.folder.join("exercises"))?;
        fs::write(&path, text).with_context(|| path.display().to_string())
    }

    fn record(&self) -> PathBuf {
        self.folder.join("exercises/proved.json")
    }

    fn is_there(&self, name: &str) -> bool {
        let file = match name.strip_prefix(EXPERIMENT) {
            Some(name) => format!("src/{EXPERIMENT}{}.rs", name.replace('-', "_")),
            None => format!("exercises/{name}.md"),
        };
        self.folder.join(file).exists()
    }

    fn read(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let path = self.record();
        if !path.exists() {
            return Ok(BTreeMap::new());
        }
        let read = || anyhow::Ok(serde_json::from_slice(&fs::read(&path)?)?);
        read().with_context(|| path.display().to_string())
    }

    /// A hash of everything that the proof depends on, in this folder.
    fn fingerprint(&self, folder: &Path) -> anyhow::Result<String> {
        let mut files: Vec<_> = self.files.iter().map(|file| folder.join(file)).collect();
        files.push(folder.join("Cargo.toml"));
        for part in ["migrations", "app", "deploy", "Dockerfile"] {
            files.extend(files_below(&folder.join(part))?);
        }
        for file in files_below(&folder.join("src"))? {
            if self.depends_on(&folder.join("src"), &file)? {
                files.push(file);
            }
        }
        files.sort();
        let mut hash = Sha256::new();
        for file in files {
            let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
            // CRLF line ends in a checkout do not change the code.
            let text = String::from_utf8_lossy(&bytes).replace("\r\n", "\n");
            let place = file.strip_prefix(folder)?.to_string_lossy().replace('\\', "/");
            hash.update(format!("{place}\n{}\n", text.len()));
            hash.update(text);
        }
        let mut hex = String::new();
        for byte in &hash.finalize()[..16] {
            write!(hex, "{byte:02x}")?;
        }
        Ok(hex)
    }

    /// No proof depends on the cases, on the whiteboard version, or on an experiment that it does not run.
    fn depends_on(&self, src: &Path, file: &Path) -> anyhow::Result<bool> {
        if file.starts_with(src.join("cases")) || file == src.join("whiteboard.rs") {
            return Ok(false);
        }
        if !file.starts_with(src.join("experiments")) {
            return Ok(true);
        }
        Ok(match declared_in(file)? {
            Some(name) => self.experiments.contains(&name),
            // A file that the experiments share.
            None => !self.experiments.is_empty(),
        })
    }
}

/// Every file below a folder, if there is one. A file is below itself.
pub fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.exists() {
        return Ok(files);
    }
    if folder.is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    for entry in folder.read_dir().with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(files_below(&path)?);
        } else {
            files.push(path);
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exercise::{Check, Front, Key};

    /// An answer with two experiments and one exercise, and its folder.
    fn exercise(check: Check) -> (tempfile::TempDir, Exercise) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("Cargo.toml", "[package]\n"),
            ("src/lib.rs", "fn one() {}\nfn two() {}\n"),
            ("src/cases/mod.rs", "// cases\n"),
            ("src/experiments/fixture.rs", "// shared\n"),
            ("src/experiments/big_sum.rs", "pub fn experiment() -> Experiment {}\n"),
            ("src/experiments/other.rs", "pub fn experiment() -> Experiment {}\n"),
            ("exercises/sum.md", "sum\n"),
            ("exercises/sum.wrong.rs", "// wrong\n"),
        ] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let front = Front {
            title: String::new(),
            level: String::new(),
            file: "src/lib.rs".into(),
            gap: String::new(),
            todo: String::new(),
            checks: vec![check],
            hints: Vec::new(),
        };
        let key = Key { answer: "sums".to_owned(), name: "sum".to_owned() };
        let path = folder.path().to_owned();
        (folder, Exercise { key, front, text: String::new(), folder: path })
    }

    fn unit() -> Check {
        Check { unit: Some("sum::".to_owned()), experiment: None, otherwise: String::new() }
    }

    fn by_experiment() -> Check {
        let experiment = Some("big-sum --numbers 3".to_owned());
        Check { unit: None, experiment, otherwise: String::new() }
    }

    /// Whether a change of this file makes a recorded proof invalid.
    fn matters(folder: &Path, proof: &Proof, file: &str) -> bool {
        proof.note(folder).unwrap();
        assert!(proof.is_noted().unwrap());
        let path = folder.join(file);
        let before = fs::read(&path).ok();
        fs::write(&path, "pub fn experiment() -> Experiment { /* changed */ }\n").unwrap();
        let matters = !proof.is_noted().unwrap();
        match before {
            Some(before) => fs::write(&path, before).unwrap(),
            None => fs::remove_file(&path).unwrap(),
        }
        matters
    }

    #[test]
    fn an_exercise_needs_a_new_proof_when_its_answer_or_itself_has_changed() {
        let (folder, exercise) = exercise(unit());
        let proof = Proof::of_exercise(&exercise);
        assert!(!proof.is_noted().unwrap());
        for file in [
            "src/lib.rs",
            "src/new.rs",
            "Dockerfile",
            "exercises/sum.md",
            "exercises/sum.wrong.rs",
            "Cargo.toml",
        ] {
            assert!(matters(folder.path(), &proof, file), "{file}");
        }
        for file in ["src/cases/mod.rs", "src/experiments/big_sum.rs", "src/experiments/fixture.rs"]
        {
            assert!(!matters(folder.path(), &proof, file), "{file}");
        }
    }

    #[test]
    fn a_proof_depends_on_the_experiments_that_take_part_in_it_and_on_no_others() {
        let (folder, exercise) = exercise(by_experiment());
        let key = Key { answer: "sums".to_owned(), name: "big-sum".to_owned() };
        let experiment = Experiment { key, folder: exercise.folder.clone() };
        for proof in [Proof::of_exercise(&exercise), Proof::of_sabotages(&experiment)] {
            for file in ["src/experiments/big_sum.rs", "src/experiments/fixture.rs", "src/lib.rs"] {
                assert!(matters(folder.path(), &proof, file), "{file}");
            }
            assert!(!matters(folder.path(), &proof, "src/experiments/other.rs"));
        }
    }

    #[test]
    fn line_ends_ask_for_no_new_proof() {
        let (folder, exercise) = exercise(unit());
        let proof = Proof::of_exercise(&exercise);
        proof.note(folder.path()).unwrap();
        fs::write(folder.path().join("src/lib.rs"), "fn one() {}\r\nfn two() {}\r\n").unwrap();
        assert!(proof.is_noted().unwrap());
    }

    #[test]
    fn what_was_removed_leaves_the_record() {
        let (folder, exercise) = exercise(unit());
        let experiment = |name: &str| {
            let key = Key { answer: "sums".to_owned(), name: name.to_owned() };
            Proof::of_sabotages(&Experiment { key, folder: exercise.folder.clone() })
        };
        Proof::of_exercise(&exercise).note(folder.path()).unwrap();
        experiment("other").note(folder.path()).unwrap();
        for file in ["exercises/sum.md", "src/experiments/other.rs"] {
            fs::remove_file(folder.path().join(file)).unwrap();
        }
        let big = experiment("big-sum");
        big.note(folder.path()).unwrap();
        assert_eq!(big.read().unwrap().into_keys().collect::<Vec<_>>(), ["experiments/big-sum"]);
    }
}
