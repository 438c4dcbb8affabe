//! Whose is the text of a file, the reader's or ours? Git knows; in a download without git nobody does, and everything
//! may be the reader's.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What git says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Git {
    /// It is as in the last commit.
    AsCommitted,
    /// It has changes that only the working tree has.
    Changed,
    /// It does not know the file, or there is no git: a ZIP download.
    Unknown,
}

/// What git says of this file.
pub fn git(workspace: &Path, file: &Path) -> Git {
    let succeeds = |words: &[&str]| {
        let mut git = Command::new("git");
        git.args(words).arg(file).current_dir(workspace);
        git.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success())
    };
    if !succeeds(&["ls-files", "--error-unmatch", "--"]) {
        Git::Unknown
    } else if succeeds(&["diff", "--quiet", "HEAD", "--"]) {
        Git::AsCommitted
    } else {
        Git::Changed
    }
}

/// Whether two texts are the same, however their lines end: an editor may have changed that.
pub fn same(one: &str, other: &str) -> bool {
    one.lines().eq(other.lines())
}
