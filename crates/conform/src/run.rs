//! How does a program score? A line for each case, and what is wrong where something is.

use std::time::Instant;

use anyhow::ensure;
use serde::Serialize;

use crate::{
    case::{Case, Kind},
    expect::Finding,
    target::Target,
};

/// What came of one case.
#[derive(Clone, Debug, Serialize)]
pub struct Result {
    /// The case.
    pub case: &'static str,
    /// What the table says.
    pub says: &'static str,
    /// Why it matters.
    pub why: &'static str,
    /// The request that was answered wrongly, or the last one.
    pub sent: String,
    /// The answer.
    pub came: String,
    /// What is wrong; nothing if all is well.
    pub wrong: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
}

/// Which kinds of cases are tried.
#[derive(Clone, Copy, Debug)]
pub struct Tried {
    /// Those in which many ask at once.
    pub load: bool,
    /// Those that kill the server.
    pub restart: bool,
}

impl Tried {
    /// Whether cases of this kind are.
    pub fn includes(self, kind: Kind) -> bool {
        match kind {
            Kind::Plain => true,
            Kind::Load => self.load,
            Kind::Restart => self.restart,
        }
    }
}

/// Tries the cases one after another and tells each result as it comes.
pub async fn run(
    cases: &[Case],
    target: &Target,
    tried: Tried,
    mut tell: impl FnMut(&Result),
) -> anyhow::Result<Vec<Result>> {
    let reached = target.get("healthz").await;
    ensure!(
        reached.is_ok(),
        "nothing answers at {}. Start your program first, or let --restart-cmd start it",
        target.url()
    );
    let mut results = Vec::new();
    for case in cases.iter().filter(|case| tried.includes(case.kind)) {
        let begun = Instant::now();
        // What the case before has sent must not be shown as this one's.
        target.note("", "");
        let outcome = (case.run)(target).await;
        // A case may look at an answer after it has sent more.
        let finding = outcome.as_ref().err().and_then(|wrong| wrong.downcast_ref::<Finding>());
        let exchange = finding.map_or_else(|| target.last_exchange(), |it| it.exchange.clone());
        let result = Result {
            case: case.name,
            says: case.says,
            why: case.why,
            sent: exchange.sent,
            came: exchange.came,
            wrong: outcome.err().map(|error| format!("{error:#}")),
            seconds: begun.elapsed().as_secs_f64(),
        };
        tell(&result);
        results.push(result);
    }
    Ok(results)
}
