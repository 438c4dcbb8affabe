//! What is in an image that nobody needs?

use std::fs;

use lab::{Experiment, Lab, Need, Sabotage, Service, Target, child::program_file};
use tokio::process::Command;

use super::{
    containers::{Containers, file},
    python::say,
};

/// What can be chosen.
#[derive(clap::Args, Clone, Debug)]
pub struct Params {
    /// The packages of the app, by commas; nothing: those of its requirements.txt
    #[arg(long, default_value = "")]
    pub packages: String,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "size",
        "An image of several stages holds no installer and less than the textbook's; an image from scratch holds no shell either",
        &["--packages", "itsdangerous"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "Dockerfile",
        replace: "FROM ${RUNTIME}\n",
        with: "FROM ${PYTHON}\n",
        check: "files of an installer in our image",
    })
}

/// Of the line that a node pulls an image through, in bits a second.
const LINE: f64 = 100e6;

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    lab.progress(0, 4, "making a local python:3.11");
    containers.import_python().await?;
    lab.text("python:3.11 is made of this machine's Python here, without a compiler; the real one has about a gigabyte.");
    let context = containers.app("size", &params.packages)?;
    lab.progress(1, 4, "the textbook's image");
    containers.build(&file("Dockerfile.textbook")?, &context, "textbook", &[]).await?;
    lab.progress(2, 4, "our image");
    containers.build(&file("Dockerfile")?, &context, "ours", &[]).await?;
    lab.progress(3, 4, "the Rust twin from scratch");
    let is_lean = scratch(&containers).await?;
    if !is_lean {
        lab.text("The program in the image from scratch has our experiments in it. For the program alone, run `cargo build --release -p containerized-app --features image --bin twin` first.");
    }
    let (mut rows, mut sizes) = (Vec::new(), Vec::new());
    for image in ["textbook", "ours", "scratch"] {
        let bytes: f64 = containers.inspect(image, "{{.Size}}").await?.parse()?;
        let files = containers.files(image).await?;
        let count = |part: &str| files.iter().filter(|path| path.contains(part)).count();
        let installer = count("/bin/pip") + count("/site-packages/pip/");
        let packages = files.iter().filter(|path| path.ends_with(".dist-info/METADATA")).count();
        let shells = files.iter().filter(|path| path.ends_with("bin/sh")).count();
        match image {
            "textbook" => lab.check(
                "files of an installer in the textbook's image",
                "at least 1",
                installer,
                installer >= 1,
            ),
            "ours" => lab.check_eq("files of an installer in our image", 0, installer),
            _ => lab.check_eq("shells in the image from scratch", 0, shells),
        }
        let mib = bytes / f64::from(1 << 20);
        let pull = bytes * 8.0 / LINE;
        if image == "scratch" && is_lean {
            let most = Target::AtMost(10.0);
            lab.figure_with_target("the Rust twin from scratch: size", bytes / 1e6, "MB", most);
        } else {
            lab.figure(format_args!("{image}: size"), mib, "MiB");
        }
        sizes.push(bytes);
        rows.push(vec![
            image.to_owned(),
            format!("{mib:.1}"),
            files.len().to_string(),
            packages.to_string(),
            shells.to_string(),
            format!("{pull:.1}"),
        ]);
    }
    lab.check(
        "our image is smaller than the textbook's",
        "a ratio below 1",
        format!("{:.2}", sizes[1] / sizes[0]),
        sizes[1] < sizes[0],
    );
    lab.table(
        "What an image holds",
        &["image", "MiB", "files", "Python packages", "shells", "pull at 100 Mbit/s (s)"],
        rows,
    );
    Ok(())
}

/// The Rust twin with its libraries, and nothing else. Returns whether it is the program of the image.
async fn scratch(containers: &Containers) -> anyhow::Result<bool> {
    let root = containers.path("scratch");
    fs::create_dir_all(&root)?;
    let lean = lab::stack::workspace().join("target/release/twin");
    let is_lean = lean.exists();
    let program = if is_lean { lean } else { program_file()? };
    fs::copy(&program, root.join("app"))?;
    // Without `strip` it is only larger.
    let _ = say(Command::new("strip").arg(root.join("app"))).await;
    for library in say(Command::new("ldd").arg(&program)).await?.split_whitespace() {
        if library.starts_with('/') {
            let to = root.join(library.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap_or(&root))?;
            fs::copy(library, to)?;
        }
    }
    containers.engine.import(&root, "scratch").await?;
    Ok(is_lean)
}
