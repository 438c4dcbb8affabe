//! Which exercises need no new proof? Those of which nothing has changed since the last one.
//!
//! Each answer's `exercises/proved.json` is committed. It holds, for each exercise, a hash of what its proof depends
//! on: the answer's own code and the exercise. A change of the support crates asks for no new proof, because their own
//! tests look after them; `prove --all` proves everything.

use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sha2::{Digest, Sha256};

use crate::exercise::Exercise;

/// Whether this exercise, as it is now, was proved.
pub fn is_proved(exercise: &Exercise) -> anyhow::Result<bool> {
    Ok(read(exercise)?.get(&exercise.key.name) == Some(&fingerprint(exercise)?))
}

/// Notes that it was proved as it is now.
pub fn note(exercise: &Exercise) -> anyhow::Result<()> {
    let mut proved = read(exercise)?;
    proved.insert(exercise.key.name.clone(), fingerprint(exercise)?);
    // An exercise that was removed needs no proof.
    proved.retain(|name, _| exercise.folder.join(format!("exercises/{name}.md")).exists());
    let text = serde_json::to_string_pretty(&proved)? + "\n";
    let path = record(exercise);
    fs::write(&path, text).with_context(|| path.display().to_string())
}

fn record(exercise: &Exercise) -> PathBuf {
    exercise.folder.join("exercises/proved.json")
}

fn read(exercise: &Exercise) -> anyhow::Result<BTreeMap<String, String>> {
    let path = record(exercise);
    if !path.exists() {
        return Ok(BTreeMap::new());
    }
    let read = || anyhow::Ok(serde_json::from_slice(&fs::read(&path)?)?);
    read().with_context(|| path.display().to_string())
}

/// A hash of the answer's code without its cases and its whiteboard version, on which no proof depends, and of the
/// exercise.
fn fingerprint(exercise: &Exercise) -> anyhow::Result<String> {
    let folder = &exercise.folder;
    let name = &exercise.key.name;
    let mut files = vec![
        folder.join("Cargo.toml"),
        folder.join(format!("exercises/{name}.md")),
        folder.join(format!("exercises/{name}.wrong.rs")),
    ];
    for part in ["src", "migrations"] {
        files.extend(files_below(&folder.join(part))?);
    }
    let src = folder.join("src");
    files.retain(|file| !file.starts_with(src.join("cases")) && *file != src.join("whiteboard.rs"));
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let bytes = fs::read(&file).with_context(|| file.display().to_string())?;
        // A checkout with CRLF line ends is the same code.
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

/// Every file below a folder, if there is one.
pub fn files_below(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    if !folder.exists() {
        return Ok(files);
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
    use crate::exercise::{Front, Key};

    /// An answer with one exercise, and its folder.
    fn exercise() -> (tempfile::TempDir, Exercise) {
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [
            ("Cargo.toml", "[package]\n"),
            ("src/lib.rs", "fn one() {}\nfn two() {}\n"),
            ("src/cases/mod.rs", "// cases\n"),
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
            checks: Vec::new(),
            hints: Vec::new(),
        };
        let key = Key { answer: "sums".to_owned(), name: "sum".to_owned() };
        let path = folder.path().to_owned();
        (folder, Exercise { key, front, text: String::new(), folder: path })
    }

    #[test]
    fn an_exercise_needs_a_new_proof_when_its_answer_or_itself_has_changed() {
        let (folder, exercise) = exercise();
        assert!(!is_proved(&exercise).unwrap());
        for file in ["src/lib.rs", "exercises/sum.md", "exercises/sum.wrong.rs", "Cargo.toml"] {
            note(&exercise).unwrap();
            assert!(is_proved(&exercise).unwrap());
            fs::write(folder.path().join(file), "changed\n").unwrap();
            assert!(!is_proved(&exercise).unwrap(), "{file}");
        }
        note(&exercise).unwrap();
        fs::write(folder.path().join("src/new.rs"), "").unwrap();
        assert!(!is_proved(&exercise).unwrap(), "a new file");
    }

    #[test]
    fn cases_and_line_ends_ask_for_no_new_proof() {
        let (folder, exercise) = exercise();
        note(&exercise).unwrap();
        fs::write(folder.path().join("src/cases/mod.rs"), "// other cases\n").unwrap();
        fs::write(folder.path().join("src/lib.rs"), "fn one() {}\r\nfn two() {}\r\n").unwrap();
        assert!(is_proved(&exercise).unwrap());
    }

    #[test]
    fn a_removed_exercise_leaves_the_record() {
        let (folder, exercise) = exercise();
        note(&exercise).unwrap();
        fs::write(folder.path().join("exercises/other.md"), "").unwrap();
        fs::write(folder.path().join("exercises/other.wrong.rs"), "").unwrap();
        let key = Key { answer: "sums".to_owned(), name: "other".to_owned() };
        let other = Exercise { key, ..exercise.clone() };
        fs::remove_file(folder.path().join("exercises/sum.md")).unwrap();
        note(&other).unwrap();
        assert_eq!(read(&other).unwrap().into_keys().collect::<Vec<_>>(), ["other"]);
    }
}
