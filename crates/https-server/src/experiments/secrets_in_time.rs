//! What do the sizes tell?

use std::{collections::BTreeSet, sync::Arc};

use anyhow::ensure;
use lab::{Experiment, Lab, Sabotage};
use rand::{Rng, seq::IndexedRandom};
use tokio_rustls::rustls::ClientConfig;

use super::{
    fixture::{Fixture, HOST},
    tap::Tap,
};
use crate::{
    cases::client::{BOTH, connect, exchange, get},
    pages::TOPICS,
};

/// What can be chosen.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Params {
    /// Pages that are read, each chosen at random
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(25..=10_000))]
    pub pages: u32,
    /// Padded pages are as long as a multiple of this
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u32).range(2_048..=65_536))]
    pub pad_to: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "secrets-in-time",
        "Sizes still leak: an observer nearly always guesses which of five pages was read. With padded answers, the length \
         of the request still tells more than chance; with both padded, the guess is no better than chance",
        &["--pages", "30"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/pages.rs",
        replace: "map_or(0, |whole| whole - page.len())",
        with: "map_or(0, |_| to)",
        check: "with padding: pages that the observer guesses",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let of = f64::from(params.pages);
    // Four standard deviations of the right guesses, if each is right with this chance: one honest run in thirty thousand
    // is further off to one side.
    let far = |share: f64| 4.0 * (of * share * (1.0 - share)).sqrt();
    let naked = Observer::learn(&lab, 0, false).await?;
    let naked = naked.guess(&lab, params.pages, "without padding").await?;
    let at_least = (0.95 * of).ceil();
    let check = "without padding: pages that the observer guesses";
    lab.check(check, format!("at least {at_least} of {of}"), naked, f64::from(naked) >= at_least);
    let answers = Observer::learn(&lab, params.pad_to, false).await?;
    let answers = answers.guess(&lab, params.pages, "with padded answers").await?;
    // The paths have three lengths, and of those that are equally long one is as likely as the other.
    let lengths: BTreeSet<_> = TOPICS.iter().map(|(topic, _)| topic.len()).collect();
    let share = lengths.len() as f64 / TOPICS.len() as f64;
    let at_least = (of * share - far(share)).ceil();
    let check = "with padded answers: pages that the observer guesses by the requests";
    lab.check(
        check,
        format!("at least {at_least} of {of}"),
        answers,
        f64::from(answers) >= at_least,
    );
    let padded = Observer::learn(&lab, params.pad_to, true).await?;
    let padded = padded.guess(&lab, params.pages, "with padding").await?;
    let chance = 1.0 / TOPICS.len() as f64;
    let at_most = (of * chance + far(chance)).floor();
    let check = "with padding: pages that the observer guesses";
    lab.check(check, format!("at most {at_most} of {of}"), padded, f64::from(padded) <= at_most);
    lab.figure("guessed without padding", f64::from(naked) / of * 100.0, "%");
    lab.figure("guessed with padded answers", f64::from(answers) / of * 100.0, "%");
    lab.figure("guessed with padding", f64::from(padded) / of * 100.0, "%");
    Ok(())
}

/// Somebody who sees every byte that crosses the wire, and reads none.
struct Observer {
    // The process ends with this.
    _fixture: Fixture,
    tap: Tap,
    client: Arc<ClientConfig>,
    /// Whether whoever reads pads requests, as the server pads answers.
    pads_requests: bool,
    /// How many bytes come with each page, and how many ask for it.
    known: Vec<(&'static str, (usize, usize))>,
    visits: usize,
}

impl Observer {
    /// Visits each page first, as anybody can.
    async fn learn(lab: &Lab, pad_to: u32, pads_requests: bool) -> anyhow::Result<Self> {
        let fixture = Fixture::start(&["--pad-to", &pad_to.to_string()]).await?;
        let tap = Tap::on(fixture.https).await?;
        let client = fixture.shared_client(BOTH)?;
        let known = Vec::new();
        let mut this = Self { _fixture: fixture, tap, client, pads_requests, known, visits: 0 };
        let mut rows = Vec::new();
        for (topic, _) in TOPICS {
            let (mut come, mut go) = (Vec::new(), Vec::new());
            for _ in 0..3 {
                let sizes = this.read(topic).await?;
                come.push(sizes.0);
                go.push(sizes.1);
            }
            // The signature in the handshake is a few bytes longer or shorter each time.
            come.sort_unstable();
            go.sort_unstable();
            rows.push(vec![topic.to_owned(), come[1].to_string(), go[1].to_string()]);
            this.known.push((topic, (come[1], go[1])));
        }
        let requests = if pads_requests { ", and requests too" } else { "" };
        let title = format!("Bytes on the wire, answers padded to {pad_to}{requests}");
        lab.table(title, &["page", "to the client", "to the server"], rows);
        Ok(this)
    }

    /// Somebody reads a page, and the observer counts what goes to the client, and to the server.
    async fn read(&mut self, topic: &str) -> anyhow::Result<(usize, usize)> {
        let mut stream = connect(&self.client, self.tap.address, HOST).await?;
        // A path has a length too. With this, each is as long as one of sixteen letters.
        let fill = "x".repeat(if self.pads_requests { 16 - topic.len() } else { 0 });
        let request = get(HOST, &format!("/pages/{topic}"), &[("x-fill", &fill)]);
        let page = exchange(&mut stream, &request).await?;
        ensure!(page.status == 200, "{topic}: {}", page.status);
        let sizes = [false, true].map(|to_server| self.tap.stream(self.visits, to_server).len());
        self.visits += 1;
        Ok(sizes.into())
    }

    /// How many of these pages are guessed.
    async fn guess(mut self, lab: &Lab, pages: u32, label: &str) -> anyhow::Result<u32> {
        let all = TOPICS.map(|(topic, _)| topic);
        let mut guessed = 0;
        for n in 0..pages {
            lab.progress(n.into(), pages.into(), label);
            let topic = all.choose(&mut rand::rng()).copied().unwrap_or_default();
            let sizes = self.read(topic).await?;
            guessed += u32::from(self.nearest(sizes) == topic);
        }
        Ok(guessed)
    }

    /// The page whose sizes are nearest; if several are, one of them.
    fn nearest(&self, (come, go): (usize, usize)) -> &'static str {
        // What comes from the server is a few bytes longer or shorter each time; what goes there is not.
        let distance =
            |(_, known): &(&str, (usize, usize))| known.0.abs_diff(come) / 8 + known.1.abs_diff(go);
        let least = self.known.iter().map(distance).min().unwrap_or(0);
        let nearest: Vec<_> = self.known.iter().filter(|known| distance(known) == least).collect();
        nearest[rand::rng().random_range(0..nearest.len())].0
    }
}
