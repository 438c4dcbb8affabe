//! Do two builds of the same code give the same image?

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use lab::{Experiment, Lab, Need, Sabotage, skip};
use tempfile::TempDir;
use tokio::process::Command;

use super::{fixture::FOLDER, python::say};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "reproducible",
        "Two builds of the same code give two images, since each says when it was built. With the clock fixed, in OCI's \
         format, they are the same, also from another checkout; another umask gives another image, and so does what a run of \
         the app has left, unless .dockerignore names it",
        &[],
        run,
    )
    .needs(&[Need::Linux])
    .sabotage(Sabotage {
        file: "app/.dockerignore",
        replace: "**/__pycache__\n*.pyc\n",
        with: "",
        check: "the clock is fixed, and the app was run there before: the image is",
    })
}

/// No base and no step that runs, so that nothing but the code and the builder decides.
const DOCKERFILE: &str = "FROM scratch\nCOPY . /app\n";
const FIXED: [&str; 2] = ["--timestamp", "0"];
/// Docker's own format names the container in which the image was built, which is a new one each time.
const DOCKERS_FORMAT: [&str; 4] = ["--timestamp", "0", "--format", "docker"];

async fn run(_: Params, lab: Lab) -> anyhow::Result<()> {
    let builder = Builder::new()?;
    lab.progress(0, 10, "a first build");
    let checkout = builder.checkout("checkout", 0o644)?;
    let first = builder.build(&checkout, &FIXED).await;
    let first = first.map_err(|error| skip(format!("buildah builds nothing here: {error:#}")))?;
    let another = builder.checkout("another", 0o644)?;
    let private = builder.checkout("private", 0o600)?;
    let was_run = builder.checkout("was-run", 0o644)?;
    // As Python does when it runs the app.
    let mut compile = Command::new("python3");
    compile.args(["-m", "py_compile", "app.py"]).current_dir(&was_run);
    say(&mut compile).await.map_err(|error| skip(format!("it needs python3: {error:#}")))?;

    let nothing = builder.path("nothing");
    fs::write(&nothing, "")?;
    let nothing = nothing.display().to_string();
    let ignoring = ["--timestamp", "0", "--ignorefile", &*nothing];
    let as_it_goes = builder.build(&checkout, &[]).await?;
    let all_files = builder.build(&checkout, &ignoring).await?;
    let ways: [(&str, &Path, &[&str], &str, bool); 6] = [
        ("the clock goes on", &checkout, &[], &as_it_goes, false),
        ("the clock is fixed", &checkout, &FIXED, &first, true),
        ("the clock is fixed, in another checkout", &another, &FIXED, &first, true),
        ("the clock is fixed, and the umask is another", &private, &FIXED, &first, false),
        ("the clock is fixed, and the app was run there before", &was_run, &FIXED, &first, true),
        ("the same without .dockerignore", &was_run, &ignoring, &all_files, false),
    ];
    let mut rows = Vec::new();
    for (n, (name, context, options, before, is_same)) in ways.into_iter().enumerate() {
        lab.progress(n as u64 + 3, 10, name);
        let image = builder.build(context, options).await?;
        let words = |is_same| if is_same { "the same" } else { "another" };
        lab.check_eq(format!("{name}: the image is"), words(is_same), words(image == before));
        rows.push(vec![name.to_owned(), short(before), short(&image)]);
    }
    // Not checked: a later buildah may leave the name out.
    let before = builder.build(&checkout, &DOCKERS_FORMAT).await?;
    let image = builder.build(&checkout, &DOCKERS_FORMAT).await?;
    let name = "the clock is fixed, in Docker's format instead of OCI's";
    rows.push(vec![name.to_owned(), short(&before), short(&image)]);
    lab.table("The same code, built twice", &["", "first image", "second image"], rows);
    Ok(())
}

/// The first digits of an image's id, which is a digest of its settings and its layers.
fn short(id: &str) -> String {
    id.chars().take(12).collect()
}

/// Builds images with a store of its own. Docker's classic builder cannot fix the clock, so this is `buildah`.
struct Builder {
    folder: TempDir,
}

impl Builder {
    fn new() -> anyhow::Result<Self> {
        let builder = Self { folder: tempfile::tempdir()? };
        fs::write(builder.path("Dockerfile"), DOCKERFILE)?;
        Ok(builder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The app's files. Those of the first checkout were written at another time.
    fn checkout(&self, name: &str, mode: u32) -> anyhow::Result<PathBuf> {
        let copy = self.path(name);
        fs::create_dir(&copy)?;
        fs::set_permissions(&copy, Permissions::from_mode(0o755))?;
        let written = SystemTime::now() - Duration::from_secs(60 * name.len() as u64);
        for entry in fs::read_dir(Path::new(FOLDER).join("app"))?.flatten() {
            if entry.file_type()?.is_file() {
                let file = copy.join(entry.file_name());
                fs::copy(entry.path(), &file)?;
                File::options().append(true).open(&file)?.set_modified(written)?;
                fs::set_permissions(&file, Permissions::from_mode(mode))?;
            }
        }
        Ok(copy)
    }

    /// Returns the image's id.
    async fn build(&self, context: &Path, options: &[&str]) -> anyhow::Result<String> {
        let mut buildah = Command::new("buildah");
        buildah.args(["--storage-driver", "vfs", "--root"]).arg(self.path("images"));
        buildah.arg("--runroot").arg(self.path("state"));
        buildah.args(["build-using-dockerfile", "--quiet", "--no-cache", "--format", "oci"]);
        buildah.args(["--isolation", "chroot", "--file"]).arg(self.path("Dockerfile"));
        Ok(say(buildah.args(options).arg(context)).await?.trim().to_owned())
    }
}
