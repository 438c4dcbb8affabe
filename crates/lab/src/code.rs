//! Which code made a result? We keep a hash of the answer's own files and of `edge`'s with each result. If the code was
//! changed since, the hashes differ.

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use sha2::{Digest, Sha256};

/// The code of one answer, as it is on disk now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Code {
    /// A hash of all its files.
    pub hash: String,
    /// When one of its files was last written.
    pub written: SystemTime,
}

impl Code {
    /// The code of the answer in this folder. Tests do not count: no program is built from them.
    pub fn of(answer: &Path) -> io::Result<Self> {
        let mut files = Vec::new();
        for folder in [answer.join("src"), answer.join("migrations"), answer.join("../edge/src")] {
            if folder.is_dir() {
                collect(&folder, &mut files)?;
            }
        }
        files.sort();
        let (mut hash, mut written) = (Sha256::new(), SystemTime::UNIX_EPOCH);
        for path in files {
            let text = fs::read(&path)?;
            let name = path.strip_prefix(answer).unwrap_or(&path).to_string_lossy();
            // The lengths keep the end of one file apart from the beginning of the next.
            hash.update(format!("{name} {}\n", text.len()));
            hash.update(text);
            written = written.max(fs::metadata(&path)?.modified()?);
        }
        Ok(Self {
            hash: hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect(),
            written,
        })
    }

    /// Whether this program was built from this code, judged by the times of the files, as cargo does.
    pub fn is_in_this_program(&self) -> bool {
        // On Linux `/proc/self/exe` stays right even after cargo has replaced the executable with a new build.
        let program =
            fs::metadata("/proc/self/exe").or_else(|_| fs::metadata(std::env::current_exe()?));
        program.and_then(|it| it.modified()).is_ok_and(|built| self.written <= built)
    }
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.file_stem().is_some_and(|stem| stem == "tests") {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_changes_with_the_code_and_not_with_its_tests_or_its_text() {
        let root = std::env::temp_dir().join(format!("code-{}", std::process::id()));
        let answer = root.join("some");
        let write = |path: &str, text: &str| {
            let path = root.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        let hash = || Code::of(&answer).unwrap().hash;
        write("some/src/lib.rs", "one");
        let first = hash();
        write("some/src/tests.rs", "no part of it");
        write("some/src/code/tests.rs", "nor this");
        write("some/chapter.md", "nor this");
        assert_eq!(hash(), first);
        for (file, text) in [
            ("some/src/lib.rs", "two"),
            ("some/src/experiments/race.rs", ""),
            ("some/migrations/1.sql", ""),
            ("edge/src/pool.rs", ""),
        ] {
            let before = hash();
            write(file, text);
            assert_ne!(hash(), before, "{file} is no part of it");
        }
        write("some/src/lib.rs", "one");
        fs::remove_dir_all(root.join("some/src/experiments")).unwrap();
        fs::remove_dir_all(root.join("some/migrations")).unwrap();
        fs::remove_dir_all(root.join("edge")).unwrap();
        assert_eq!(hash(), first, "what is undone has changed nothing");
        fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_was_written_after_this_program_was_built_is_not_in_it() {
        let written = |written| Code { hash: String::new(), written }.is_in_this_program();
        assert!(written(SystemTime::UNIX_EPOCH));
        assert!(!written(SystemTime::now()));
    }
}
