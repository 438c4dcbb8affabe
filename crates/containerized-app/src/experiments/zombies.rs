//! Who collects the orphans of a container?

use std::{fs, path::Path};

use anyhow::ensure;
use lab::{Experiment, Lab, Need, Sabotage, harness::within};

use super::fixture::{as_number_one, ms, number_one};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Children that lose their parent
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub children: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "zombies",
        "Orphans go to number one. If it does not collect them, each stays as a zombie and keeps its process number; a program \
         that collects, or an init in front of one that does not, leaves none",
        &["--children", "50"],
        run,
    )
    .needs(&[Need::Linux])
    .sabotage(Sabotage {
        file: "src/init.rs",
        // Signals of one kind are not queued.
        replace: "while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}",
        with: "let _ = wait(WaitOptions::NOHANG);",
        check: "zombies below our program",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let alone = as_number_one()?;
    let installed = |name: &&&str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| Path::new(&folder).join(name).exists())
    };
    let init = ["tini", "docker-init"].iter().find(installed).copied();
    let (_, ours) = zombies(&lab, &alone, params, false).await?;
    let (orphans, naive) = zombies(&lab, &alone, params, true).await?;
    lab.check_eq("zombies below our program", 0, ours);
    lab.check(
        "zombies below a program that does not collect",
        format!("nearly all of {orphans} orphans"),
        naive,
        orphans > 0 && naive >= orphans * 9 / 10,
    );
    let mut rows = vec![
        vec!["our program".to_owned(), ours.to_string()],
        vec!["a program that does not collect".to_owned(), naive.to_string()],
    ];
    if let Some(init) = init {
        let under = [alone.as_slice(), &[init, "--"]].concat();
        let (_, below) = zombies(&lab, &under, params, true).await?;
        lab.check_eq("zombies if an init stands in front", 0, below);
        rows.push(vec![format!("the same, below {init}"), below.to_string()]);
    } else {
        lab.text("Neither tini nor docker-init is installed, so no init stands in front.");
    }
    lab.figure("orphans", orphans as f64, "processes");
    lab.figure("zombies without an init", naive as f64, "processes");
    lab.table("Zombies after all orphans have ended", &["number one", "zombies"], rows);
    Ok(())
}

/// How many orphans go to number one, and how many of them are zombies after all have ended?
async fn zombies(
    lab: &Lab,
    under: &[&str],
    params: Params,
    whiteboard: bool,
) -> anyhow::Result<(usize, usize)> {
    let mut builder = lab.serve().under(under);
    if whiteboard {
        builder = builder.arg("--whiteboard");
    }
    let child = builder.start().await?;
    let one = number_one(&child)?;
    let url = format!("{}/fork?children={}", child.url(), params.children);
    let status = reqwest::Client::builder().no_proxy().build()?.post(url).send().await?.status();
    ensure!(status == 200, "POST /fork: {status}");
    // On a slow machine the first have ended before their parent, which has collected them. Those are no orphans.
    let orphans = children_of(one).len();
    // They sleep for half a second. What still runs then is no zombie yet.
    within(ms(20_000), "all orphans have ended", async || {
        Ok(children_of(one).iter().all(|state| *state == 'Z').then_some(()))
    })
    .await
    .or_else(|error| if whiteboard { Ok(()) } else { Err(error) })?;
    // One more moment, for a program that is about to collect the last of them.
    let collected = within(ms(1_000), "no zombie is left", async || {
        Ok(children_of(one).is_empty().then_some(()))
    });
    let _ = collected.await;
    Ok((orphans, children_of(one).iter().filter(|state| **state == 'Z').count()))
}

/// The states of the children of this process that are neither the program itself nor threads.
fn children_of(parent: u32) -> Vec<char> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let state = |stat: &str| {
        // The name, in parentheses, may hold anything.
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?.chars().next()?;
        (fields.next()?.parse() == Ok(parent)).then_some(state)
    };
    processes
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok())
        .filter(|stat| stat.contains("(sleep)") || stat.contains("(sh)"))
        .filter_map(|stat| state(&stat))
        .collect()
}
