//! Do the programs in `examples/` keep the promises of their answers? Each is tried by all cases of its suite, also those
//! that kill it. A whiteboard version has to fail the cases that ours fails. Where an interpreter or its packages cannot be
//! had, the test counts as ignored.

use std::{any::Any, collections::BTreeSet, fs, path::Path, process::Command, time::Duration};

use anyhow::ensure;
use conform::{
    program::Program,
    run::{Result, Tried, run},
    target::Target,
};
use guide::example::Language;
use lab::{
    Answer, Service,
    database::Database,
    harness::{Completion, Trial, trial},
    keys::Keys,
    mistakes::Mistakes,
    queues::Queues,
};
use sqlx::migrate::Migrator;

/// How long a program may take to start on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

/// Cases that one of the two whiteboard versions fails, because their frameworks differ: uvicorn reads headers of any
/// length, and FastAPI answers for a handler that raises.
const OF_THE_FRAMEWORK: [&str; 2] =
    ["a_bomb_of_headers_is_refused", "panics_beside_others_harm_none_of_them"];

/// A test for each program that there is, and one for each whiteboard version.
pub fn tests() -> Vec<Trial> {
    let mut tests = Vec::new();
    for answer in guide::answers() {
        for language in Language::EVERY {
            let (name, program) =
                (format!("{}_in_{}", answer.name, language.name()), answer.clone());
            if language.has(answer.name, false) {
                tests.push(trial(module_path!(), &name, move || conforms(program, language)));
            }
            let (name, whiteboard) = (format!("whiteboard_of_{name}"), answer.clone());
            if language.has(answer.name, true) {
                tests.push(trial(module_path!(), &name, move || errs(whiteboard, language)));
            }
        }
    }
    tests
}

async fn conforms(answer: Answer, language: Language) -> anyhow::Result<Completion> {
    let results = tried(&answer, language, false).await?;
    let wrong: Vec<_> = results.iter().filter(|result| result.wrong.is_some()).collect();
    ensure!(wrong.is_empty() && results.len() == answer.suite.cases.len(), "{wrong:#?}");
    Ok(Completion::Completed)
}

/// The whiteboard version makes the mistakes that the chapter's table lists.
async fn errs(answer: Answer, language: Language) -> anyhow::Result<Completion> {
    let chapter = fs::read_to_string(Path::new(answer.folder).join("chapter.md"))?;
    let ours = Mistakes::read(&answer, &chapter)?.cases;
    let results = tried(&answer, language, true).await?;
    let wrong = results.iter().filter(|result| result.wrong.is_some());
    let theirs: BTreeSet<_> = wrong.map(|result| result.case.to_owned()).collect();
    let differs = ours.symmetric_difference(&theirs);
    let differs: Vec<_> = differs.filter(|it| !OF_THE_FRAMEWORK.contains(&it.as_str())).collect();
    ensure!(differs.is_empty(), "only one whiteboard version fails {differs:#?}: {results:#?}");
    Ok(Completion::Completed)
}

/// What comes of all cases, tried on this program.
async fn tried(
    answer: &Answer,
    language: Language,
    whiteboard: bool,
) -> anyhow::Result<Vec<Result>> {
    let name = answer.name;
    // It may wait for the network.
    let command = tokio::task::spawn_blocking(move || language.command(name, whiteboard)).await??;
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
    let mut command = in_shell(&command, &variables);
    if whiteboard {
        // Each of its mistakes prints a traceback.
        command += " 2>/dev/null";
    }
    let program = Program::of(command, &url, PATIENCE).await?;
    let target = Target::new(&url, Some(program.restart()))?;
    run(&answer.suite.cases, &target, Tried { load: true, restart: true }, |_| {}).await
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
