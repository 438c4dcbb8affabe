//! Does every claim hold? Each registered experiment, with its quick parameters.

use anyhow::{anyhow, bail};
use lab::{Answer, report::terminal};
use libtest_mimic::{Completion, Trial};
use tokio::sync::mpsc::unbounded_channel;

use crate::support::trial;

pub fn tests(answers: &[Answer]) -> Vec<Trial> {
    let pairs = answers.iter().flat_map(|answer| {
        answer.experiments.iter().map(move |experiment| (answer.clone(), experiment.clone()))
    });
    pairs
        .map(|(answer, experiment)| {
            let name = format!("{} {}", answer.name, experiment.name);
            trial("experiment", &name, move || async move {
                let quick: Vec<_> = experiment.quick.iter().map(|&word| word.to_owned()).collect();
                let (events, _unread) = unbounded_channel();
                let report = experiment
                    .run(&answer, &quick, events)
                    .await
                    .map_err(|error| anyhow!("its quick parameters do not parse: {error}"))?;
                if let Some(why) = report.skipped {
                    return Ok(Completion::ignored_with(why));
                }
                if !report.held() {
                    bail!("{}", terminal::show(&report));
                }
                Ok(Completion::Completed)
            })
        })
        .collect()
}
