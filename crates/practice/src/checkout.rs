//! Did the reader change a file? Git knows. In a download without git nobody knows, and any file may contain the
//! reader's changes.

use std::{
    path::Path,
    process::{Command, Stdio},
};

/// What git says of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Git {
    /// The file is as in the last commit.
    AsCommitted,
    /// The file has uncommitted changes.
    Changed,
    /// Git does not know the file, or there is no git, as in a ZIP download.
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

/// Whether two texts have the same lines. An editor may have changed the line ends, which do not count.
pub fn same(one: &str, other: &str) -> bool {
    one.lines().eq(other.lines())
}
