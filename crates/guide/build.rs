//! Makes `guide::answers()` from the list of answers in `Cargo.toml`, so that an answer is listed in one place.

use std::{env, fs, path::Path};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=Cargo.toml");
    let manifest = fs::read_to_string("Cargo.toml")?;
    // Only answers are listed with their path.
    let names = manifest.lines().filter_map(|line| line.split_once(" = { path = ")).map(|it| it.0);
    let calls: String =
        names.map(|name| format!("{}::answer(), ", name.replace('-', "_"))).collect();
    let code = format!(
        "/// Every answer there is, in the order of the book.\n\
         pub fn answers() -> Vec<lab::Answer> {{ vec![{calls}] }}\n"
    );
    Ok(fs::write(Path::new(&env::var("OUT_DIR")?).join("answers.rs"), code)?)
}
