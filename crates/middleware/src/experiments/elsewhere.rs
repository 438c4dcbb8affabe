//! The same layers in other frameworks, where this machine has them.

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context;
use conform::target::Target;
use lab::stack::workspace;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

/// A framework, and the program in `examples/middleware/` that uses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framework {
    /// On Node.
    Express,
    /// On Python, WSGI.
    Flask,
    /// On Python, WSGI.
    Django,
}

/// All of them.
pub const ALL: [Framework; 3] = [Framework::Express, Framework::Flask, Framework::Django];

/// A program that runs until this is dropped.
#[derive(Debug)]
pub struct Running {
    /// A client of it.
    pub target: Target,
    _process: Child,
}

impl Framework {
    /// Starts it with a time limit in milliseconds; 0 for none. Or says why it cannot run here.
    pub async fn start(self, limit: u32) -> anyhow::Result<Result<Running, String>> {
        let Some(mut command) = self.interpreter().await else {
            return Ok(Err(format!(
                "{self:?} is not installed: see examples/middleware/README.md"
            )));
        };
        let file = match self {
            Self::Express => "express.cjs",
            Self::Flask => "flask_app.py",
            Self::Django => "django_app.py",
        };
        let mut process = command
            .arg(workspace().join("examples/middleware").join(file))
            .args(["0", &limit.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut lines = BufReader::new(process.stdout.take().context("piped")?).lines();
        let line = timeout(Duration::from_secs(30), lines.next_line()).await;
        let line = line.with_context(|| format!("{self:?} did not listen within 30 s"))??;
        let url = line.as_deref().and_then(|line| line.strip_prefix("listening on "));
        let url = url.with_context(|| format!("{self:?} ended before it listened"))?;
        Ok(Ok(Running { target: Target::new(url, None)?, _process: process }))
    }

    /// A program that can load the framework.
    async fn interpreter(self) -> Option<Command> {
        let own = workspace().join("target/elsewhere");
        let (programs, test) = match self {
            Self::Express => (vec![PathBuf::from("node")], ["-e", "require('express')"]),
            Self::Flask => (pythons(&own), ["-c", "import flask"]),
            Self::Django => (pythons(&own), ["-c", "import django"]),
        };
        for program in programs {
            let command = || {
                let mut command = Command::new(&program);
                command.env("NODE_PATH", own.join("node_modules"));
                command
            };
            let loads = command().args(test).stdin(Stdio::null()).output().await;
            if loads.is_ok_and(|output| output.status.success()) {
                return Some(command());
            }
        }
        None
    }
}

fn pythons(own: &std::path::Path) -> Vec<PathBuf> {
    vec![own.join("venv/bin/python"), PathBuf::from("python3")]
}
