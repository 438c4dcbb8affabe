//! Is a process healthy again after it was killed?

use lab::{Experiment, Lab, NoOptions, Sabotage};

/// The experiment.
pub fn experiment() -> Experiment {
    let claim = "A process that was killed and started again is healthy";
    Experiment::new("restart", claim, &[], run).sabotage(Sabotage {
        file: "src/api.rs",
        replace: r#"route("/healthz", "#,
        with: r#"route("/health", "#,
        check: "it answers again",
    })
}

async fn run(_: NoOptions, lab: Lab) -> anyhow::Result<()> {
    let mut child = lab.serve().start().await?;
    child.kill().await?;
    let while_dead = reqwest::get(format!("{}/healthz", child.url())).await;
    lab.check("nothing answers for a dead process", "an error", format!("{while_dead:?}"), while_dead.is_err());
    child.restart().await?;
    let status = reqwest::get(format!("{}/healthz", child.url())).await?.status().as_u16();
    lab.check("it answers again", 200, status, status == 200);
    Ok(())
}
