//! Do the programs in `examples/` keep the promises of their answers? Each is tried by all cases of its suite, also those
//! that kill it. Where its interpreter or its packages cannot be had, the test counts as ignored.

use std::{any::Any, process::Command, time::Duration};

use anyhow::ensure;
use conform::{
    program::Program,
    run::{Tried, run},
    target::Target,
};
use guide::example::Language;
use lab::{
    Answer, Service,
    database::Database,
    harness::{Completion, Trial, trial},
    keys::Keys,
    queues::Queues,
};
use sqlx::migrate::Migrator;

/// How long a program may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// A test for each program that there is.
pub fn tests() -> Vec<Trial> {
    let programs = guide::answers().into_iter().flat_map(|answer| {
        let languages = Language::EVERY.into_iter().filter(move |it| it.has(answer.name, false));
        languages.map(move |language| (answer.clone(), language))
    });
    let test = |(answer, language): (Answer, Language)| {
        let name = format!("{}_in_{}", answer.name, language.name());
        trial(module_path!(), &name, move || conforms(answer, language))
    };
    programs.map(test).collect()
}

async fn conforms(answer: Answer, language: Language) -> anyhow::Result<Completion> {
    let name = answer.name;
    // It may wait for the network.
    let command = tokio::task::spawn_blocking(move || language.command(name, false)).await??;
    let port = lab::port::free()?;
    let mut variables = vec![("PORT", port.to_string())];
    // Its database, keys and queues, which are deleted when they are dropped: after the program, which is made later.
    let mut owned: Vec<Box<dyn Any>> = Vec::new();
    for service in answer.needs {
        match service {
            Service::Postgres => {
                let none = Migrator::with_migrations(Vec::new());
                let database = Database::fresh_part(name, language.name(), &none).await?;
                variables.push((service.variable(), database.url().to_owned()));
                owned.push(Box::new(database));
            }
            Service::Redis => {
                let keys = Keys::fresh(name).await?;
                variables.push((service.variable(), keys.url().to_owned()));
                variables.push(("KEY_PREFIX", keys.prefix().to_owned()));
                owned.push(Box::new(keys));
            }
            Service::RabbitMq => {
                let mut queues = Queues::fresh(name).await?;
                let prefix = queues.prefix().to_owned();
                queues.expect([prefix.clone(), format!("{prefix}.dead")], [])?;
                variables.push((service.variable(), queues.url().to_owned()));
                variables.push(("QUEUE_PREFIX", prefix));
                owned.push(Box::new(queues));
            }
            other => return Err(lab::skip(format!("nobody gives an example {other}"))),
        }
    }
    let url = format!("http://127.0.0.1:{port}");
    let program = Program::of(in_shell(&command, &variables), &url, PATIENCE).await?;
    let target = Target::new(&url, Some(program.restart()))?;
    let cases = answer.suite.cases;
    let results = run(&cases, &target, Tried { load: true, restart: true }, |_| {}).await?;
    let wrong: Vec<_> = results.iter().filter(|result| result.wrong.is_some()).collect();
    ensure!(wrong.is_empty() && results.len() == cases.len(), "{wrong:#?}");
    Ok(Completion::Completed)
}

/// The command as a shell takes it, with these variables.
fn in_shell(command: &Command, variables: &[(&str, String)]) -> String {
    let quoted = |text: &str| format!("'{}'", text.replace('\'', r"'\''"));
    let own = command.get_envs().filter_map(|(name, value)| {
        Some((name.to_string_lossy(), value?.to_string_lossy().into_owned()))
    });
    let given = variables.iter().map(|(name, value)| ((*name).into(), value.clone()));
    let set = own.chain(given).map(|(name, value)| quoted(&format!("{name}={value}")));
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let words = words.map(|word| quoted(&word.to_string_lossy()));
    format!("exec env {}", set.chain(words).collect::<Vec<_>>().join(" "))
}
