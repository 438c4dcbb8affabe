//! What does a change of one line cost?

use std::{
    collections::HashMap,
    fs::{self, OpenOptions},
    io::Write,
    time::Instant,
};

use lab::{Experiment, Lab, Need, Sabotage, Service, Target};

use super::containers::{Containers, file};

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
        "layers",
        "After a change of one line of code, an image with its dependencies first is built again without installing them; with \
         the code first, they are installed once more. The textbook has the right order",
        &["--packages", "itsdangerous"],
        run,
    )
    .needs(&[Need::Tool(Service::ContainerEngine)])
    .sabotage(Sabotage {
        file: "Dockerfile",
        replace: "COPY requirements.txt .\nRUN pip install",
        with: "COPY . .\nRUN pip install",
        check: "ours: packages were installed again",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let containers = Containers::start(&lab).await?;
    lab.progress(0, 4, "making a local python:3.11");
    containers.import_python().await?;
    let textbook = file("Dockerfile.textbook")?;
    let code_first = textbook.replace(
        "COPY requirements.txt .\nRUN pip install -r requirements.txt\nCOPY . .\n",
        "COPY . .\nRUN pip install -r requirements.txt\n",
    );
    anyhow::ensure!(code_first != textbook, "the textbook's Dockerfile has changed");
    let ways = [("code first", code_first), ("textbook", textbook), ("ours", file("Dockerfile")?)];
    let (mut rows, mut seconds) = (Vec::new(), Vec::new());
    for (n, (name, dockerfile)) in ways.iter().enumerate() {
        lab.progress(n as u64 + 1, 4, name);
        let image = name.replace(' ', "-");
        let context = containers.app(&image, &params.packages)?;
        let begun = Instant::now();
        containers.build(dockerfile, &context, &image, &[]).await?;
        let cold = begun.elapsed().as_secs_f64();
        let before = layers(&containers, &image).await?;
        let mut app = OpenOptions::new().append(true).open(context.join("app.py"))?;
        writeln!(app, "# one line")?;
        let begun = Instant::now();
        let said = containers.build(dockerfile, &context, &image, &[]).await?;
        let again = begun.elapsed().as_secs_f64();
        let after = layers(&containers, &image).await?;
        let new: u64 =
            after.iter().filter(|(id, _)| !before.contains_key(*id)).map(|(_, size)| size).sum();
        let installed = said.contains("Installing collected packages");
        let expected = *name == "code first";
        lab.check_eq(format!("{name}: packages were installed again"), expected, installed);
        lab.figure(format_args!("{name}: bytes of new layers"), new as f64 / 1_024.0, "KiB");
        lab.figure(format_args!("{name}: built again in"), again, "s");
        seconds.push(again);
        rows.push(vec![
            (*name).to_owned(),
            format!("{cold:.1}"),
            format!("{again:.1}"),
            format!("{:.1}", new as f64 / 1_024.0),
            installed.to_string(),
        ]);
        fs::remove_dir_all(&context)?;
    }
    lab.figure_with_target(
        "ours ÷ code first, built again",
        seconds[2] / seconds[0],
        "",
        Target::AtMost(0.2),
    );
    lab.table(
        "One line of code changes",
        &[
            "Dockerfile",
            "first build (s)",
            "built again (s)",
            "new layers (KiB)",
            "installed again",
        ],
        rows,
    );
    Ok(())
}

/// The steps of an image, with the bytes that each has added.
async fn layers(containers: &Containers, image: &str) -> anyhow::Result<HashMap<String, u64>> {
    let words = ["history", "--human=false", "--no-trunc", "--format", "{{.ID}} {{.Size}}", image];
    let said = containers.engine.docker(&words).await?;
    let line = |line: &str| {
        let (id, size) = line.split_once(' ')?;
        Some((id.to_owned(), size.parse().ok()?))
    };
    Ok(said.lines().filter_map(line).collect())
}
