//! How can people read the book without running it? As static files, with our recorded results in them.

use std::{fs, path::Path};

use anyhow::{Context, bail};

use crate::{book::Book, mode::Mode};

/// Writes the book into a folder, for any web server. Fails if the book has a problem.
pub fn write(book: &Book, folder: &Path) -> anyhow::Result<()> {
    if !book.problems.is_empty() {
        bail!("the book has problems:\n  {}", book.problems.join("\n  "));
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
