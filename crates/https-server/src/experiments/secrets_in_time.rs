//! What do the sizes tell?

use std::sync::Arc;

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
        "Sizes still leak: an observer nearly always guesses which of five pages was read. With padding the guess is no \
         better than chance",
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
    let naked =
        Observer::learn(&lab, 0).await?.guess(&lab, params.pages, "without padding").await?;
    let at_least = (0.95 * of).ceil();
    let check = "without padding: pages that the observer guesses";
    lab.check(check, format!("at least {at_least} of {of}"), naked, f64::from(naked) >= at_least);
    let padded = Observer::learn(&lab, params.pad_to).await?;
    let padded = padded.guess(&lab, params.pages, "with padding").await?;
    // Chance, and four standard deviations of it: one honest run in thirty thousand has more.
    let chance = 1.0 / TOPICS.len() as f64;
    let at_most = (of * chance + 4.0 * (of * chance * (1.0 - chance)).sqrt()).floor();
    let check = "with padding: pages that the observer guesses";
    lab.check(check, format!("at most {at_most} of {of}"), padded, f64::from(padded) <= at_most);
    lab.figure("guessed without padding", f64::from(naked) / of * 100.0, "%");
    lab.figure("guessed with padding", f64::from(padded) / of * 100.0, "%");
    Ok(())
}

/// Somebody who sees every byte that crosses the wire, and reads none.
struct Observer {
    // The process ends with this.
    _fixture: Fixture,
    tap: Tap,
    client: Arc<ClientConfig>,
    /// How many bytes come with each page.
    known: Vec<(&'static str, usize)>,
    visits: usize,
}

impl Observer {
    /// Visits each page first, as anybody can.
    async fn learn(lab: &Lab, pad_to: u32) -> anyhow::Result<Self> {
        let fixture = Fixture::start(&["--pad-to", &pad_to.to_string()]).await?;
        let tap = Tap::on(fixture.https).await?;
        let client = fixture.shared_client(BOTH)?;
        let mut this = Self { _fixture: fixture, tap, client, known: Vec::new(), visits: 0 };
        let mut rows = Vec::new();
        for (topic, _) in TOPICS {
            let mut sizes = Vec::new();
            for _ in 0..3 {
                sizes.push(this.read(topic).await?);
            }
            // The signature in the handshake is a few bytes longer or shorter each time.
            sizes.sort_unstable();
            rows.push(vec![topic.to_owned(), sizes[1].to_string()]);
            this.known.push((topic, sizes[1]));
        }
        lab.table(format!("Bytes to the client, padded to {pad_to}"), &["page", "bytes"], rows);
        Ok(this)
    }

    /// Somebody reads a page, and the observer counts.
    async fn read(&mut self, topic: &str) -> anyhow::Result<usize> {
        let mut stream = connect(&self.client, self.tap.address, HOST).await?;
        let page = exchange(&mut stream, &get(HOST, &format!("/pages/{topic}"), &[])).await?;
        ensure!(page.status == 200, "{topic}: {}", page.status);
        let size = self.tap.stream(self.visits, false).len();
        self.visits += 1;
        Ok(size)
    }

    /// How many of these pages are guessed.
    async fn guess(mut self, lab: &Lab, pages: u32, label: &str) -> anyhow::Result<u32> {
        let all = TOPICS.map(|(topic, _)| topic);
        let mut guessed = 0;
        for n in 0..pages {
            lab.progress(n.into(), pages.into(), label);
            let topic = all.choose(&mut rand::rng()).copied().unwrap_or_default();
            let size = self.read(topic).await?;
            guessed += u32::from(self.nearest(size) == topic);
        }
        Ok(guessed)
    }

    /// The page whose size is nearest; if several are, one of them.
    fn nearest(&self, size: usize) -> &'static str {
        let distance = |known: &(&str, usize)| known.1.abs_diff(size);
        let least = self.known.iter().map(distance).min().unwrap_or(0);
        let nearest: Vec<_> = self.known.iter().filter(|known| distance(known) == least).collect();
        nearest[rand::rng().random_range(0..nearest.len())].0
    }
}
