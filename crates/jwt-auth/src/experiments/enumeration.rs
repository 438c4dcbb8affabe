//! Does a login tell, by its words or by its time, whether an address has an account?

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use lab::{Experiment, Lab, Sabotage, Target, load::median};
use rand::seq::SliceRandom;
use reqwest::StatusCode;
use serde_json::Value;
use tokio::time::sleep;

use super::fixture::{Fixture, start};
use crate::{
    cases::client::{Client, credentials},
    password::OWASP,
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Logins of each kind
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(20..=10_000))]
    logins: u32,
    /// Memory for Argon2id, in KiB
    #[arg(long, default_value_t = OWASP.memory_kib, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    memory: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "enumeration",
        "A failed login takes the same time for a known and for an unknown address to within noise, and says the same",
        &["--logins", "30", "--memory", "8192"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/password.rs",
        replace: "let known = PasswordHash::new(hash.unwrap_or(&self.dummy)).map_err(Error::internal)?;",
        with: r"let Some(kept) = hash else { return Ok(false) };
        let known = PasswordHash::new(kept).map_err(Error::internal)?;",
        check: "the time of a login does not tell whether there is an account",
    })
}

const WRONG: &str = "a wrong password";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab).await?;
    let memory = params.memory.to_string();
    // Each login is for another address, or the accounts would be slowed down; the client's limit is out of the way.
    let limits = ["--failures-per-client", "1000000", "--argon2-memory", &memory];
    let (_child, client) = start(fixture.serve().args(&limits)).await?;
    for n in 0..params.logins {
        lab.progress(n.into(), u64::from(params.logins) * 3, "accounts made");
        client.register(&format!("known{n}@example.com")).await?;
    }
    // In pairs, each in a random order: whatever else this machine does falls on both of a pair alike.
    let mut order = Vec::new();
    for n in 0..params.logins {
        let mut pair = [("known", n), ("nobody", n)];
        pair.shuffle(&mut rand::rng());
        order.extend(pair);
    }
    let (mut known, mut unknown) = (Vec::new(), Vec::new());
    let mut words = Vec::new();
    for (done, (kind, n)) in (u64::from(params.logins)..).zip(order) {
        lab.progress(done, u64::from(params.logins) * 3, "logins that fail, in pairs");
        let body = credentials(&format!("{kind}{n}@example.com"), WRONG);
        let (took, status, text) = timed_login(&client, &body).await?;
        ensure!(status.is_client_error(), "{kind}: {status} {text}");
        let text = format!("{status} {text}");
        if !words.contains(&text) {
            words.push(text);
        }
        if kind == "known" { known.push(took) } else { unknown.push(took) }
    }
    // What it would be without a hash: the time of a request that fails before it.
    let mut unhashed = Vec::new();
    for _ in 0..20 {
        let begun = Instant::now();
        client.target.post("login", &credentials("nobody", WRONG)).await?;
        unhashed.push(begun.elapsed().as_secs_f64() * 1e3);
    }
    report(&lab, &known, &unknown, unhashed, &words);
    Ok(())
}

/// How long a login took, and what came of it. One that got a 503 because the machine was busy is tried again: its
/// time says nothing about a hash.
async fn timed_login(client: &Client, body: &Value) -> anyhow::Result<(f64, StatusCode, String)> {
    for _ in 0..3 {
        let begun = Instant::now();
        let response = client.target.post("login", body).await?;
        let (status, text) = (response.status(), response.text().await?);
        if status != StatusCode::SERVICE_UNAVAILABLE {
            return Ok((begun.elapsed().as_secs_f64() * 1e3, status, text));
        }
        sleep(Duration::from_secs(1)).await;
    }
    bail!("sent away three times")
}

fn report(lab: &Lab, known: &[f64], unknown: &[f64], unhashed: Vec<f64>, words: &[String]) {
    let (a, b) = (median(known.to_vec()), median(unknown.to_vec()));
    lab.figure("a known address, median", a, "ms");
    lab.figure("an unknown address, median", b, "ms");
    lab.figure("a login that is refused before the hash, median", median(unhashed), "ms");
    let ratios = known.iter().zip(unknown).map(|(known, unknown)| known / unknown).collect();
    let difference = (median(ratios) - 1.0).abs();
    lab.figure_with_target(
        "difference within a pair, median",
        difference * 100.0,
        "%",
        Target::AtMost(5.0),
    );
    for (name, times) in [("known", known), ("unknown", unknown)] {
        let mut times = times.to_vec();
        times.sort_by(f64::total_cmp);
        for percent in [5_usize, 10, 25, 50, 75, 90, 95] {
            let value = times[(times.len() - 1) * percent / 100];
            lab.point(
                "Time of a failed login",
                ("percentile", "ms"),
                name,
                (percent as f64, value),
            );
        }
    }
    // 1/2 when the times tell nothing; 1 or 0 when one is always the longer. It looks at ranks only, so an outlier
    // counts as one.
    let (chance, bound) = (guess(known, unknown), bound(known.len(), unknown.len()));
    lab.figure("chance that of two logins the longer one is the known address's", chance, "");
    lab.check(
        "the time of a login does not tell whether there is an account",
        format!("a chance of {:.3} to {:.3}", 0.5 - bound, 0.5 + bound),
        format!("{chance:.3}"),
        (chance - 0.5).abs() <= bound,
    );
    lab.check_eq("different answers that were seen", 1, words.len());
}

/// The Mann-Whitney statistic: of all pairs, in how many the first is longer. Ties count half.
fn guess(longer: &[f64], shorter: &[f64]) -> f64 {
    let wins = |a: f64| {
        shorter.iter().map(move |&b| {
            if a > b { 1.0 } else { 0.5 * f64::from(u8::from((a - b).abs() < f64::EPSILON)) }
        })
    };
    longer.iter().flat_map(|&a| wins(a)).sum::<f64>() / (longer.len() * shorter.len()) as f64
}

/// How far from a half the statistic may be by chance alone: four of its own standard deviations under the hypothesis that
/// both times have one distribution. One honest run in 16,000 is farther away.
fn bound(longer: usize, shorter: usize) -> f64 {
    let (m, n) = (longer as f64, shorter as f64);
    4.0 * ((m + n + 1.0) / (12.0 * m * n)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_statistic_is_a_half_for_equals_and_one_for_what_is_always_longer() {
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        assert!(close(guess(&[1.0, 2.0, 3.0], &[1.0, 2.0, 3.0]), 0.5));
        assert!(close(guess(&[4.0, 5.0], &[1.0, 2.0, 3.0]), 1.0));
        assert!(close(guess(&[1.0], &[2.0]), 0.0));
    }

    #[test]
    fn more_logins_narrow_the_bound() {
        assert!((bound(100, 100) - 0.1637).abs() < 1e-4, "{}", bound(100, 100));
        assert!((bound(30, 30) - 0.3007).abs() < 1e-4, "{}", bound(30, 30));
    }
}
