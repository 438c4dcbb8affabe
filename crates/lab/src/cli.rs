//! Which commands does every binary understand? `serve`, `experiment`, `list` and `stack`.

mod experiment;

use std::{io::IsTerminal, path::Path, process::ExitCode, slice};

use anyhow::Context;
use clap::{Arg, ArgAction, ArgMatches, Command, builder::PossibleValuesParser, value_parser};

use crate::{
    answer::Answer,
    child, database, environment, executable,
    experiment::Experiment,
    open_files,
    report::terminal,
    serve::Serving,
    stack::{self, Service},
    whiteboard,
};

/// The whole `main` of an answer.
#[expect(clippy::needless_pass_by_value, reason = "so that `main` is one line")]
pub fn run(answer: Answer) -> ExitCode {
    if let Some(code) = take_over(slice::from_ref(&answer)) {
        return code;
    }
    let answers = slice::from_ref(&answer);
    let command = answer_command(&answer);
    let matches =
        command.subcommand(list_command()).subcommand(stack_command(answers)).get_matches();
    block_on(async {
        match matches.subcommand() {
            Some(("list" | "stack", _)) => answers_words(answers, &matches).await,
            _ => answer_words(&answer, &matches).await,
        }
    })
}

/// Called first in the `main` of every program that builds on `lab`. If one of our processes started this one as its
/// [child] or as the keeper of a private server, does that work and returns its exit code.
pub fn take_over(answers: &[Answer]) -> Option<ExitCode> {
    executable::knows_its_parts();
    open_files::begin();
    if let Some(code) = stack::keeper::take_over() {
        return Some(code);
    }
    if let Err(error) = environment::begin_undisturbed() {
        eprintln!("error: {error:#}");
        return Some(ExitCode::FAILURE);
    }
    // The arguments begin with an answer's name or with `stack`.
    child::is_this().then(|| {
        let matches = answers_command(Command::new("lab"), answers).get_matches();
        block_on(answers_words(answers, &matches))
    })
}

/// Adds to `command` one subcommand for each answer, and `list` and `stack`.
pub fn answers_command(command: Command, answers: &[Answer]) -> Command {
    command
        .subcommand(list_command())
        .subcommand(stack_command(answers))
        .subcommands(answers.iter().map(answer_command))
}

/// Runs what [`answers_command`] parsed. The exit code is 1 if a check failed.
pub async fn answers_words(answers: &[Answer], matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("stack", matches)) => stack_words(answers, matches).await,
        Some(("list", matches)) => {
            list(answers, matches.get_flag("json"));
            Ok(ExitCode::SUCCESS)
        }
        Some((name, matches)) => {
            let answer = answers.iter().find(|answer| answer.name == name);
            answer_words(answer.context("no such answer")?, matches).await
        }
        None => anyhow::bail!("no command is given; --help lists them"),
    }
}

/// Runs a `main`, and prints its error as a sentence.
pub fn block_on(work: impl Future<Output = anyhow::Result<ExitCode>>) -> ExitCode {
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let code = runtime.block_on(work).unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    });
    // After Ctrl-C a reader must not wait for a task that blocks.
    runtime.shutdown_background();
    code
}

/// Logs to standard error, as much as `RUST_LOG` asks for. Colour on a terminal, unless `NO_COLOR` is set.
pub fn log(default: &str) {
    let colour = std::io::stderr().is_terminal() && !terminal::no_color();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env();
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter.unwrap_or_else(|_| default.into()))
        .with_ansi(colour)
        .with_writer(std::io::stderr);
    // Fails only if a subscriber is already set, and then that one stays.
    let _ = subscriber.try_init();
}

fn answer_command(answer: &Answer) -> Command {
    Command::new(answer.name)
        .about(answer.question)
        .subcommand(serve_command(answer))
        .subcommand(experiment::command(answer))
}

fn list_command() -> Command {
    let json = Arg::new("json").long("json").action(ArgAction::SetTrue).help("Prints JSON");
    Command::new("list").about("Lists the experiments and what they need").arg(json)
}

fn serve_command(answer: &Answer) -> Command {
    let command = Command::new("serve").about("Serves this answer (the default command)");
    // `--whiteboard` can be combined with the answer's own options, so that a fixture starts both versions alike.
    let help = "Serves the version that a candidate writes in the interview; it has no options";
    answer
        .serve
        .augment(command)
        .args(answer.serve.has_whiteboard().then(|| whiteboard::flag(help)))
        .arg(
            Arg::new("port")
                .long("port")
                .default_value("3000")
                .value_parser(value_parser!(u16))
                .overrides_with("port")
                .help("0: any free port"),
        )
        .arg(Arg::new("host").long("host").default_value("127.0.0.1").help("Where to listen"))
        .arg(
            Arg::new("reset")
                .long("reset")
                .action(ArgAction::SetTrue)
                .help("Deletes this answer's own database first and makes a new one"),
        )
}

async fn answer_words(answer: &Answer, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    match matches.subcommand() {
        Some(("serve", matches)) => serve(answer, matches).await,
        Some(("experiment", matches)) => experiment::words(answer, matches).await,
        _ => serve(answer, &serve_command(answer).get_matches_from(["serve"])).await,
    }
}

async fn serve(answer: &Answer, matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    // Without PostgreSQL's notices: `relation already exists` does not concern a reader.
    log("info,sqlx::postgres::notice=warn");
    let host = matches.get_one::<String>("host").context("it has a default")?;
    let port = *matches.get_one::<u16>("port").context("it has a default")?;
    let serving =
        Serving::bind(answer, answer.try_it, host, port, matches.get_flag("reset")).await?;
    if whiteboard::is_wanted(matches) {
        eprintln!(
            "  the whiteboard version: naive on purpose; its chapter says what it gets wrong"
        );
    }
    answer.serve.start(matches, serving)?.await?;
    Ok(ExitCode::SUCCESS)
}

fn list(answers: &[Answer], json: bool) {
    if json {
        let experiment = |answer: &Answer, e: &Experiment| {
            let needs = e.all_needs(answer).iter().map(ToString::to_string).collect::<Vec<_>>();
            serde_json::json!({
                "name": e.name,
                "claim": e.claim,
                "params": e.params(),
                "quick": e.quick,
                "sabotages": e.sabotages,
                "needs": needs,
                "obstacle": e.obstacle(answer),
            })
        };
        let answers = answers.iter().map(|answer| {
            let experiments = answer.experiments.iter().map(|it| experiment(answer, it));
            serde_json::json!({
                "name": answer.name,
                "question": answer.question,
                "needs": answer.needs,
                "experiments": experiments.collect::<Vec<_>>(),
            })
        });
        println!("{}", answers.collect::<serde_json::Value>());
        return;
    }
    for answer in answers {
        println!("{}: {}", answer.name, answer.question);
        for experiment in &answer.experiments {
            println!("  {:<16} {}", experiment.name, experiment.claim);
            let needs = experiment.all_needs(answer);
            let needs = needs.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let needs = if needs.is_empty() { "nothing".to_owned() } else { needs };
            match experiment.obstacle(answer) {
                None => println!("  {:<16} needs {needs}: can run here", ""),
                Some(why) => println!("  {:<16} cannot run here: {why}", ""),
            }
        }
    }
}

/// The commands for the servers. If there are several answers, some commands take an answer's name.
fn stack_command(answers: &[Answer]) -> Command {
    let names = || PossibleValuesParser::new(answers.iter().map(|answer| answer.name));
    let answer = || match answers {
        [only] => Arg::new("answer").value_parser(names()).default_value(only.name),
        _ => Arg::new("answer").value_parser(names()),
    };
    let arguments = |program: &str| {
        let help = format!("Arguments for {program}, after --");
        Arg::new("arguments").num_args(0..).last(true).help(help).allow_hyphen_values(true)
    };
    Command::new("stack")
        .about("The servers: PostgreSQL, Redis, RabbitMQ")
        .subcommand_required(true)
        .subcommand(Command::new("up").about("Finds or starts them"))
        .subcommand(Command::new("status").about("Shows where each comes from, and starts none"))
        .subcommand(Command::new("down").about("Stops the private ones at once"))
        .subcommand(
            Command::new("env").about("Starts them and prints their URLs, for `eval`").arg(
                Arg::new("answer")
                    .value_parser(names())
                    .help("Prints the URL of this answer's own database"),
            ),
        )
        .subcommand(
            Command::new("psql")
                .about("Opens an answer's own database")
                .arg(answer().required(answers.len() != 1))
                .arg(arguments("psql")),
        )
        .subcommand(Command::new("redis-cli").about("Opens Redis").arg(arguments("redis-cli")))
}

async fn stack_words(answers: &[Answer], matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let named = |matches: &ArgMatches| {
        let name = matches.get_one::<String>("answer")?;
        answers.iter().find(|answer| answer.name == name)
    };
    match matches.subcommand() {
        Some(("up", _)) => {
            // A binary with one answer starts only the servers that it needs.
            let needs = match answers {
                [only] => only.needs,
                _ => &Service::STACK,
            };
            stack::up(needs).await?;
        }
        Some(("env", matches)) => {
            let kept = match named(matches) {
                Some(answer) => Some(kept_database(answer).await?),
                None => None,
            };
            for server in stack::up(&Service::STACK).await? {
                let kept = kept.as_ref().filter(|_| server.service == Service::Postgres);
                let url = kept.unwrap_or(&server.url);
                println!("export {}='{url}'", server.service.variable());
            }
            // On standard error, so that a reader sees it even if `eval` takes standard output.
            match named(matches) {
                None => eprintln!(
                    "  Setting these changes nothing for the answers: without them, they use the same servers and \
                     databases. They are for psql, redis-cli and programs of your own."
                ),
                Some(answer) => eprintln!(
                    "  DATABASE_URL is the database of {}: set it for psql, and for no other answer.",
                    answer.name
                ),
            }
        }
        Some(("psql", matches)) => {
            let answer = named(matches).context("it is required")?;
            let url = kept_database(answer).await?;
            let source = stack::server(Service::Postgres).await?.source;
            eprintln!(
                "  opening the database of {}: {} ({source})",
                answer.name,
                stack::masked(&url)
            );
            return run_program(&stack::tool(Service::Postgres, "psql"), &[url], matches);
        }
        Some(("redis-cli", matches)) => {
            let server = stack::server(Service::Redis).await?;
            let url = ["-u".to_owned(), server.url.clone(), "--no-auth-warning".to_owned()];
            return run_program(&stack::tool(Service::Redis, "redis-cli"), &url, matches);
        }
        Some(("down", _)) => {
            let stopped = stack::down().await?;
            for service in &stopped {
                println!("stopped {service}");
            }
            if stopped.is_empty() {
                println!("no private server was running");
            }
        }
        _ => {
            for status in stack::status().await {
                let stack::Status { service, state, source, address } = status;
                println!("{service:<11} {state:<8} {source:<8} {address}");
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The URL of the database in which an answer keeps what a reader makes.
async fn kept_database(answer: &Answer) -> anyhow::Result<String> {
    let migrations = answer.migrations.context("this answer has no database")?;
    database::kept(answer.name, None, migrations, false).await
}

/// Runs a program in the reader's terminal, and fails if it fails.
fn run_program(program: &Path, first: &[String], matches: &ArgMatches) -> anyhow::Result<ExitCode> {
    let arguments = matches.get_many::<String>("arguments").into_iter().flatten();
    let status = std::process::Command::new(program).args(first).args(arguments).status();
    let status =
        status.with_context(|| format!("{} cannot be run; is it installed?", program.display()))?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
