//! Who reads here, and how far are they? Their progress is in one file, which the commands in the terminal use too.

use std::path::{Path, PathBuf};

use interview::progress::Progress;

use crate::editor::Editor;

/// The reader of this guide.
#[derive(Clone, Debug)]
pub struct Reader {
    /// The folder that has `.progress/`.
    workspace: PathBuf,
    /// The editor in which listings open; none if it needs a terminal.
    editor: Option<Editor>,
}

impl Reader {
    /// The reader of this workspace.
    pub fn here() -> Self {
        Self { editor: Editor::of_environment(), ..Self::of(&interview::workspace()) }
    }

    /// A reader whose progress is in this folder. Tests use one of their own, so that they touch nobody's progress.
    pub fn of(folder: &Path) -> Self {
        Self { workspace: folder.to_owned(), editor: None }
    }

    /// The same reader, with this editor.
    pub fn with_editor(self, editor: Editor) -> Self {
        Self { editor: Some(editor), ..self }
    }

    /// The editor in which listings open.
    pub fn editor(&self) -> Option<&Editor> {
        self.editor.as_ref()
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
