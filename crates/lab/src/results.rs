//! Where is the last result of an experiment? In `target/results/<answer>/<experiment>.json`.

use std::{fs, path::PathBuf, time::SystemTime};

use serde_json::Value;

use crate::{Report, code::Code, stack};

/// A result that was kept.
#[derive(Clone, Debug)]
pub struct Kept {
    /// The report of the run.
    pub report: Report,
    /// When it was kept.
    pub at: SystemTime,
    /// The hash of the [`Code`] that was run, if that is known.
    pub code: Option<String>,
}

fn path(answer: &str, experiment: &str) -> PathBuf {
    stack::workspace().join("target/results").join(answer).join(format!("{experiment}.json"))
}

/// Keeps a report of this program's in place of the previous one, with the hash of the code that the program was built
/// from.
pub fn store(report: &Report) -> anyhow::Result<()> {
    let path = path(&report.answer, &report.experiment);
    let unfinished = path.with_extension(format!("{}.new", std::process::id()));
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let code = Code::of(&stack::workspace().join("crates").join(&report.answer));
    let code = code.ok().filter(Code::is_in_this_program).map(|code| code.hash);
    let mut kept = serde_json::to_value(report)?;
    kept["code"] = code.into();
    fs::write(&unfinished, serde_json::to_vec_pretty(&kept)?)?;
    // Renamed at the end, so that no reader sees half of it.
    Ok(fs::rename(unfinished, path)?)
}

/// Whether there is a last report.
pub fn is_kept(answer: &str, experiment: &str) -> bool {
    path(answer, experiment).is_file()
}

/// The last report, or `None` if there is no readable one.
pub fn load(answer: &str, experiment: &str) -> Option<Kept> {
    let path = path(answer, experiment);
    let kept: Value = serde_json::from_slice(&fs::read(&path).ok()?).ok()?;
    let code = kept["code"].as_str().map(str::to_owned);
    let report = serde_json::from_value(kept).ok()?;
    Some(Kept { report, at: fs::metadata(path).ok()?.modified().ok()?, code })
}
