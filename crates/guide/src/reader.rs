//! Who reads here, and how far are they? Their progress is in one file, which the commands in the terminal use too.

use std::path::{Path, PathBuf};

use interview::progress::Progress;

/// The reader of this guide.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The folder that has `.progress/`.
    workspace: PathBuf,
}

impl Reader {
    /// The reader of this workspace.
    pub fn here() -> Self {
        Self::of(&interview::workspace())
    }

    /// A reader whose progress is in this folder. Tests use one of their own, so that they touch nobody's progress.
    pub fn of(folder: &Path) -> Self {
        Self { workspace: folder.to_owned() }
    }

    /// The folder that has `.progress/` and `.practice/`.
    pub fn workspace(&self) -> &Path {
        &self.workspace
    }

    /// How far they are.
    pub fn progress(&self) -> anyhow::Result<Progress> {
        Progress::load(&self.workspace)
    }

    /// Changes their progress.
    pub fn change<T>(
        &self,
        change: impl FnOnce(&mut Progress) -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        Progress::change(&self.workspace, change)
    }
}
