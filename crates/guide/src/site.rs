//! How is the book given to somebody who cannot run it? As files, with the last results in them.

use std::{fs, path::Path};

use anyhow::{Context, bail};

use crate::{book::Book, mode::Mode};

/// Writes the book into a folder, for any web server. What is wrong with the book is an error.
pub fn write(book: &Book, folder: &Path) -> anyhow::Result<()> {
    if !book.problems.is_empty() {
        bail!("the book is not whole:\n  {}", book.problems.join("\n  "));
    }
    for (path, file) in book.all(Mode::Static) {
        let to = folder.join(path);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).with_context(|| parent.display().to_string())?;
        }
        fs::write(&to, file).with_context(|| to.display().to_string())?;
    }
    Ok(())
}
