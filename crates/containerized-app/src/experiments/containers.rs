//! How do the experiments run containers? With an engine of their own (`lab`), which ends with them, and on images that are
//! made of this machine's files, since there may be no registry.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail, ensure};
use lab::{
    Lab,
    child::{ChildBuilder, program_file},
    group::ContainerEngine,
    skip,
};
use tempfile::TempDir;
use tokio::process::Command;

use super::{
    fixture::FOLDER,
    python::{Python, keep, say},
};

const ROOTFS: &str = include_str!("rootfs.sh");
const PYTHON_BASE: &str = include_str!("python-base.sh");
/// What the attempts of a container need.
const TOOLS: [&str; 17] = [
    "sh", "cat", "chmod", "chown", "chroot", "cp", "env", "id", "ls", "mkdir", "mknod", "mount",
    "rm", "sleep", "stat", "touch", "true",
];

/// An engine, and a folder for what it is given.
#[derive(Debug)]
pub struct Containers {
    /// The engine.
    pub engine: ContainerEngine,
    folder: TempDir,
}

impl Containers {
    /// Starts the engine, without any image.
    pub async fn start(lab: &Lab) -> anyhow::Result<Self> {
        Ok(Self { engine: lab.container_engine().await?, folder: tempfile::tempdir()? })
    }

    /// A path in a folder that goes with this.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Makes the image `program`: a shell, some tools, and the libraries of our program.
    pub async fn import_program(&self) -> anyhow::Result<()> {
        let (script, root) = (self.path("rootfs.sh"), self.path("program"));
        fs::write(&script, ROOTFS)?;
        let mut make = Command::new("sh");
        make.arg(&script).arg(&root).args(TOOLS).arg(program_file()?);
        say(&mut make).await.context("no image of this machine's files can be made")?;
        // A program that anybody may run as root.
        let suid = root.join("bin/id-as-root");
        fs::copy(root.join("bin/id"), &suid)?;
        fs::set_permissions(&suid, std::os::unix::fs::PermissionsExt::from_mode(0o4755))?;
        fs::create_dir_all(root.join("app"))?;
        fs::write(root.join("app/app.py"), "print('Hello, Docker!')\n")?;
        self.engine.import(&root, "program").await
    }

    /// Prepares our program in a container of that image.
    pub fn run(&self, lab: &Lab, name: &str, options: &[&str]) -> anyhow::Result<ChildBuilder> {
        let program = program_file()?;
        let program = program.to_str().context("a path that is no text")?;
        let (url, mount) = (self.engine.url()?, format!("{program}:{program}:ro"));
        let engine = ["docker", "--host", &url, "run", "--interactive", "--network", "host"];
        // Its standard input tells the program when we have died.
        let child = ["--name", name, "--env", "LAB_CHILD", "--volume", &mount];
        let words = engine.into_iter().chain(child).chain(options.iter().copied());
        Ok(lab.serve().under(words.chain(["program"])))
    }

    /// Makes the images `python:3.11` and `python:3.11-slim` of this machine's Python. The second has no `pip`.
    pub async fn import_python(&self) -> anyhow::Result<()> {
        let python = Python::with_packages().await;
        let python = python.map_err(|error| skip(format!("{error:#}")))?;
        let base = &python.base;
        if !base.exists() {
            let parent = base.parent().context("it has a folder")?;
            let made = tempfile::tempdir_in(parent)?;
            for (name, text) in [("rootfs.sh", ROOTFS), ("python-base.sh", PYTHON_BASE)] {
                fs::write(self.path(name), text)?;
            }
            let mut make = Command::new("sh");
            make.arg(self.path("python-base.sh"))
                .arg(made.path().join("whole"))
                .arg(&python.wheels);
            let said = say(make.arg(self.path("rootfs.sh"))).await;
            said.map_err(|error| skip(format!("no image can be made of this Python: {error:#}")))?;
            keep(made, base)?;
        }
        let context = self.path("bases");
        fs::create_dir_all(&context)?;
        for (folder, image, more) in [
            (
                "whole",
                "python:3.11",
                "PIP_NO_INDEX=1 PIP_FIND_LINKS=/wheels PIP_ROOT_USER_ACTION=ignore PIP_DISABLE_PIP_VERSION_CHECK=1",
            ),
            ("slim", "python:3.11-slim", ""),
        ] {
            self.engine.import(&base.join(folder), folder).await?;
            let dockerfile =
                format!("FROM {folder}\nENV PATH=/usr/local/bin:/usr/bin:/bin {more}\n");
            self.build(&dockerfile, &context, image, &[]).await?;
        }
        Ok(())
    }

    /// A copy of the app's folder, to build from and to change. With packages named, these are its requirements.
    pub fn app(&self, name: &str, packages: &str) -> anyhow::Result<PathBuf> {
        let copy = self.path(name);
        fs::create_dir_all(&copy)?;
        for entry in fs::read_dir(Path::new(FOLDER).join("app"))?.flatten() {
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), copy.join(entry.file_name()))?;
            }
        }
        if !packages.is_empty() {
            fs::write(copy.join("requirements.txt"), packages.replace(',', "\n") + "\n")?;
        }
        Ok(copy)
    }

    /// Builds an image from this Dockerfile. Returns what the builder said.
    pub async fn build(
        &self,
        dockerfile: &str,
        context: &Path,
        image: &str,
        more: &[&str],
    ) -> anyhow::Result<String> {
        let file = self.path(&format!("Dockerfile.{}", image.replace([':', '/'], "-")));
        fs::write(&file, dockerfile)?;
        let (file, context) = (file.display().to_string(), context.display().to_string());
        let words = ["build", "--network", "none", "--tag", image, "--file", &file];
        self.engine.docker(&[words.as_slice(), more, &[&context]].concat()).await
    }

    /// Whether these bytes are anywhere in an image: in a layer, in its history, in its settings.
    pub async fn holds(&self, image: &str, bytes: &str) -> anyhow::Result<bool> {
        let saved = self.path("saved.tar");
        self.engine.docker(&["save", "--output", &saved.display().to_string(), image]).await?;
        ensure!(fs::metadata(&saved)?.len() > 0, "nothing was saved");
        let mut grep = Command::new("grep");
        grep.args(["--quiet", "--text", "--fixed-strings", "--regexp", bytes]).arg(&saved);
        let status = grep.status().await.context("it needs grep")?;
        match status.code() {
            Some(0) => Ok(true),
            Some(1) => Ok(false),
            _ => bail!("grep: {status}"),
        }
    }

    /// What the engine knows of an image or of a container.
    pub async fn inspect(&self, name: &str, format: &str) -> anyhow::Result<String> {
        self.engine.docker(&["inspect", "--format", format, name]).await
    }

    /// The files of an image, by their paths.
    pub async fn files(&self, image: &str) -> anyhow::Result<Vec<String>> {
        let container = self.engine.docker(&["create", image, "nothing"]).await?;
        let tar = self.path("files.tar");
        let to = tar.display().to_string();
        self.engine.docker(&["export", "--output", &to, &container]).await?;
        let listed = say(Command::new("tar").args(["--list", "--file"]).arg(&tar)).await?;
        Ok(listed.lines().filter(|path| !path.ends_with('/')).map(str::to_owned).collect())
    }
}

/// One of this answer's own files.
pub fn file(name: &str) -> anyhow::Result<String> {
    let path = Path::new(FOLDER).join(name);
    fs::read_to_string(&path).with_context(|| path.display().to_string())
}
