//! Where is the last result of an experiment? In `target/results/<answer>/<experiment>.json`.

use std::{fs, path::PathBuf, time::SystemTime};

use crate::{Report, stack};

fn path(answer: &str, experiment: &str) -> PathBuf {
    stack::workspace().join("target/results").join(answer).join(format!("{experiment}.json"))
}

/// Keeps a report, in place of the one before.
pub fn store(report: &Report) -> anyhow::Result<()> {
    let path = path(&report.answer, &report.experiment);
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(&unfinished, serde_json::to_vec_pretty(report)?)?;
    // Renamed, so that nobody reads half of it.
    Ok(fs::rename(unfinished, path)?)
}

/// The last report and when it was made; nothing if there is none that can be read.
pub fn load(answer: &str, experiment: &str) -> Option<(Report, SystemTime)> {
    let path = path(answer, experiment);
    let report = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    Some((report, fs::metadata(path).ok()?.modified().ok()?))
}
