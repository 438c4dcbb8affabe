//! Do our own answers do what their tables of calls say? The cases by which readers try theirs.

use std::sync::Arc;

use anyhow::Context;
use conform::target::{Restart, Target};
use lab::{Answer, child::Child, database::Database};
use libtest_mimic::{Completion, Trial};
use tokio::sync::Mutex;

use crate::support::trial;

pub fn tests(answers: &[Answer]) -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, cases) in conform::suites() {
        let Some(answer) = answers.iter().find(|answer| answer.name == name) else { continue };
        for case in cases {
            let answer = answer.clone();
            let title = format!("{name} {}", case.name);
            trials.push(trial("conform", &title, move || async move {
                let served = Served::start(&answer).await?;
                (case.run)(&served.target).await?;
                Ok(Completion::Completed)
            }));
        }
    }
    trials
}

/// An answer of the case's own, which it may kill.
struct Served {
    target: Target,
    _database: Database,
}

impl Served {
    async fn start(answer: &Answer) -> anyhow::Result<Self> {
        let migrations = answer.migrations.context("it has no database")?;
        let database = Database::fresh(answer.name, migrations).await?;
        let child = Child::serve(answer.name).database(&database).start().await?;
        let url = child.url().to_owned();
        let child = Arc::new(Mutex::new(child));
        let restart: Restart = Arc::new(move || {
            let child = Arc::clone(&child);
            Box::pin(async move {
                let mut child = child.lock().await;
                child.kill().await?;
                child.restart().await
            })
        });
        Ok(Self { target: Target::new(&url, Some(restart))?, _database: database })
    }
}
