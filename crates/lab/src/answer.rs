//! What is an answer? A name, a question, the servers it needs, a way to serve it, its experiments.

use std::{fmt, sync::Arc};

use clap::{ArgMatches, Args, Command};
use conform::case::Suite;
use sqlx::migrate::Migrator;

use crate::{
    erased::{Start, Work},
    experiment::Experiment,
    serve::Serving,
    stack::Service,
    subject::Subject,
    whiteboard,
};

/// One answered question: what its crate's `answer()` declares, and all that `lab` knows of it.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The crate's name, which is also its name on the command line and in addresses.
    pub name: &'static str,
    /// The question as an interviewer asks it.
    pub question: &'static str,
    /// The crate's folder, `env!("CARGO_MANIFEST_DIR")`, with its chapter and its code.
    pub folder: &'static str,
    /// The servers that it cannot run without.
    pub needs: &'static [Service],
    /// The schema, if it has one.
    pub migrations: Option<&'static Migrator>,
    /// Command lines to try, printed when it serves. `{url}` stands for its address; [`Serving::word`] adds other
    /// words.
    pub try_it: &'static [&'static str],
    /// How it is served.
    pub serve: Serve,
    /// Its table of calls, as cases that test a program in any language.
    pub suite: Suite,
    /// The claims that it makes, each with the code that tries to refute it.
    pub experiments: Vec<Experiment>,
}

impl Answer {
    /// The experiment of this name.
    pub fn experiment(&self, name: &str) -> Option<&Experiment> {
        self.experiments.iter().find(|experiment| experiment.name == name)
    }
}

impl From<&Answer> for Subject {
    fn from(answer: &Answer) -> Self {
        Self { name: answer.name, needs: answer.needs, migrations: answer.migrations }
    }
}

/// The options of a program that has none.
#[derive(Args, Clone, Copy, Debug)]
pub struct NoOptions {}

/// The `serve` function of an answer, with the type of its options erased.
#[derive(Clone)]
pub struct Serve {
    options: fn(Command) -> Command,
    start: Start<Serving>,
    whiteboard: Option<Start<Serving>>,
}

impl Serve {
    /// Wraps `async fn serve(options: Options, serving: Serving) -> anyhow::Result<()>`.
    pub fn new<P, F, W>(serve: F) -> Self
    where
        P: Args,
        F: Fn(P, Serving) -> W + Send + Sync + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self {
            options: |command| P::augment_args(command),
            start: Arc::new(move |matches, serving| {
                Ok(Box::pin(serve(P::from_arg_matches(matches)?, serving)))
            }),
            whiteboard: None,
        }
    }

    /// Adds the version that a candidate writes in the interview, `whiteboard.rs`. It has no options:
    /// `async fn serve_whiteboard(serving: Serving) -> anyhow::Result<()>`.
    pub fn whiteboard<F, W>(self, serve: F) -> Self
    where
        F: Fn(Serving) -> W + Send + Sync + 'static,
        W: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        let start: Start<Serving> = Arc::new(move |_, serving| Ok(Box::pin(serve(serving))));
        Self { whiteboard: Some(start), ..self }
    }

    /// Whether there is a whiteboard version.
    pub fn has_whiteboard(&self) -> bool {
        self.whiteboard.is_some()
    }

    pub(crate) fn augment(&self, command: Command) -> Command {
        (self.options)(command)
    }

    /// Starts the answer, or its whiteboard version if there is one and the arguments ask for it.
    pub(crate) fn start(&self, matches: &ArgMatches, serving: Serving) -> anyhow::Result<Work> {
        match self.whiteboard.as_ref().filter(|_| whiteboard::is_wanted(matches)) {
            Some(start) => start(matches, serving.only_here()?),
            None => (self.start)(matches, serving),
        }
    }
}

impl fmt::Debug for Serve {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Serve")
    }
}
