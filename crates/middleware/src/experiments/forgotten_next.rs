//! A layer neither answers nor calls the next one. Does anybody notice?

use std::time::Duration;

use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
    routing::get,
};
use conform::target::Target;
use lab::{Experiment, Lab, Sabotage, serve::here};
use tokio::time::timeout;

use super::elsewhere::{ALL, Framework};
use crate::layer::{Form, Inner};

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds that a client waits
    #[arg(long, default_value_t = 3.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "forgotten-next",
        "A layer that neither answers nor calls the next one keeps the client waiting in Express, lets the request through in \
         Flask, and is a 500 in Django. In axum it does not compile, and one that waits for ever is ended by the time-out outside it",
        &["--seconds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/timeout.rs",
        replace: "timeout(self.limit, self.inner.clone().oneshot(request))",
        with: "timeout(self.limit * 1_000, self.inner.clone().oneshot(request))",
        check: "axum, a layer that waits for ever inside a time-out of 300 ms",
    })
}

/// The nearest to a forgotten `next` that compiles. Without the last line there is no `Response` to return.
async fn waits(_: Request, _: Next) -> Response {
    std::future::pending().await
}

/// The status that a client gets that waits so long, or words.
async fn seen(target: &Target, patience: Duration) -> String {
    let answer = timeout(patience, target.get("forgotten")).await;
    match answer {
        Err(_) => "no answer".to_owned(),
        Ok(Ok(answer)) => answer.status().as_u16().to_string(),
        Ok(Err(_)) => "the connection was closed".to_owned(),
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let patience = Duration::from_secs_f64(params.seconds);
    let mut rows = Vec::new();
    lab.text("In axum a forgotten `next` does not compile. The doctests of src/layer.rs show that; `cargo test` runs them.");
    let calls = || Router::new().route("/forgotten", get(async || "reached")).layer(from_fn(waits));
    let bare = here(calls()).await?;
    let limit = Duration::from_millis(300);
    let limited = crate::timeout::layer(Form::ByHand, limit, Inner::new(calls()));
    let limited = here(Router::new().fallback_service(limited)).await?;
    let ask = async |host: &str, patience| {
        anyhow::Ok(seen(&Target::new(&format!("http://{host}"), None)?, patience).await)
    };
    let bare = ask(&bare.host, patience).await?;
    rows.push(vec!["axum, a layer that waits for ever".into(), bare.clone()]);
    lab.check_eq("axum, a layer that waits for ever", "no answer".to_owned(), bare);
    // Longer than any busy machine needs for a third of a second.
    let limited = ask(&limited.host, Duration::from_secs(15)).await?;
    let name = "axum, a layer that waits for ever inside a time-out of 300 ms";
    rows.push(vec![name.into(), limited.clone()]);
    lab.check_eq(name, "503".to_owned(), limited);
    let mut skipped = 0;
    for framework in ALL {
        let running = match framework.start(0).await? {
            Ok(running) => running,
            Err(why) => {
                lab.text(format!("skipped: {why}"));
                skipped += 1;
                continue;
            }
        };
        let expected = match framework {
            Framework::Express => "no answer",
            // Nothing returned means: go on. A guard that forgets `return` is open.
            Framework::Flask => "200",
            Framework::Django => "500",
        };
        running.target.get("healthz").await?;
        let patience = if framework == Framework::Express { patience } else { patience * 10 };
        let seen = seen(&running.target, patience).await;
        rows.push(vec![format!("{framework:?}"), seen.clone()]);
        lab.check_eq(format!("{framework:?}"), expected.to_owned(), seen);
    }
    lab.table("What the client gets", &["where", "answer"], rows);
    lab.figure("frameworks that were skipped", f64::from(skipped), "");
    Ok(())
}
