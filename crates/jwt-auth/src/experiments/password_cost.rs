//! Somebody has stolen the table. How fast can they guess?

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use argon2::{
    Algorithm, Argon2, Params as Argon2Params, Version,
    password_hash::{PasswordVerifier, phc::PasswordHash},
};
use lab::{Experiment, Lab, Sabotage, Target, load::median};
use sha2::{Digest, Sha256};
use tokio::task::spawn_blocking;

use super::fixture::{Fixture, start};
use crate::cases::client::PASSWORD;

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Seconds for each measurement
    #[arg(long, default_value_t = 0.6, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Measurements of each, by turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "password-cost",
        "A stolen Argon2id hash of OWASP's parameters can be guessed at less than a thousandth of the speed of a plain \
         SHA-256, with one core and with all of them",
        &["--seconds", "0.3", "--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/password.rs",
        replace: "Cost { memory_kib: 19_456, passes: 2 }",
        with: "Cost { memory_kib: 1_024, passes: 1 }",
        check: "the service's hash was made with OWASP's parameters",
    })
}

/// Written down once more: a check that took them from the service would hold for any.
const PREFIX: &str = "$argon2id$v=19$m=19456,t=2,p=1$";
const MADE_WITH_OWASP: &str = "the service's hash was made with OWASP's parameters";

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // The real thing: a hash that the service itself has made, with nothing chosen by us.
    let fixture = Fixture::of(&lab).await?;
    let (child, client) = start(fixture.serve()).await?;
    client.register("ann@example.com").await?;
    drop(child);
    let pool = fixture.database.pool().await?;
    let hash: String =
        sqlx::query_scalar("select password_hash from users").fetch_one(&pool).await?;
    pool.close().await;

    let cores = thread::available_parallelism()?.get();
    let time = Duration::from_secs_f64(params.seconds);
    let Ok(parsed) = PasswordHash::new(&hash) else {
        lab.check_eq(MADE_WITH_OWASP, PREFIX.to_owned(), hash);
        return Ok(());
    };
    let digest: [u8; 32] = Sha256::digest(PASSWORD).into();
    let argon2 =
        move |guess: &str| Argon2::default().verify_password(guess.as_bytes(), &parsed).is_ok();
    let sha256 = move |guess: &str| <[u8; 32]>::from(Sha256::digest(guess)) == digest;
    let mut rows = Vec::new();
    for (done, threads) in (0..).zip([1, cores]) {
        let (mut slow, mut fast) = (Vec::new(), Vec::new());
        for round in 0..params.rounds {
            let steps = 2 * u64::from(params.rounds);
            let done = done * u64::from(params.rounds) + u64::from(round);
            lab.progress(done, steps, format!("guessing with {threads} of {cores} cores"));
            let argon2 = argon2.clone();
            let guesses = move || (guess(threads, time, &argon2), guess(threads, time, &sha256));
            let (by_argon2, by_sha256) = spawn_blocking(guesses).await?;
            slow.push(by_argon2);
            fast.push(by_sha256);
        }
        let (slow, fast) = (median(slow), median(fast));
        let ratio = fast / slow;
        rows.push(vec![
            threads.to_string(),
            format!("{slow:.1}"),
            format!("{fast:.0}"),
            format!("{ratio:.0}"),
        ]);
        lab.figure(format!("Argon2id, {threads} of {cores} cores"), slow, "guesses/s");
        lab.figure(format!("SHA-256, {threads} of {cores} cores"), fast, "guesses/s");
        // A time, so a target and no check.
        lab.figure_with_target(
            format!("SHA-256 ÷ Argon2id, {threads} of {cores} cores"),
            ratio,
            "",
            Target::AtLeast(1_000.0),
        );
    }
    let columns = ["cores", "Argon2id, guesses/s", "SHA-256, guesses/s", "ratio"];
    lab.table("Guesses a second on this machine", &columns, rows);
    checks(&lab, &hash, argon2, sha256)
}

/// What was measured has to be the real thing.
fn checks(
    lab: &Lab,
    hash: &str,
    argon2: impl Fn(&str) -> bool,
    sha256: impl Fn(&str) -> bool,
) -> anyhow::Result<()> {
    let shown = hash.split('$').take(4).collect::<Vec<_>>().join("$") + "$";
    lab.check_eq(MADE_WITH_OWASP, PREFIX.to_owned(), shown);
    let right = |found: bool| if found { "found" } else { "not found" };
    lab.check_eq(
        "the right guess, by Argon2id and by SHA-256",
        "found, found".to_owned(),
        format!("{}, {}", right(argon2(PASSWORD)), right(sha256(PASSWORD))),
    );
    // More and less memory, more and fewer passes: which of them costs what.
    let mut rows = Vec::new();
    for (memory, passes) in [(4_096, 2), (19_456, 1), (19_456, 2), (47_104, 1), (65_536, 3)] {
        let cost = Argon2Params::new(memory, passes, 1, None).ok().context("a known cost")?;
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost);
        let mut times = Vec::new();
        for _ in 0..5 {
            let begun = Instant::now();
            argon2
                .hash_password_into(b"a guess", b"a grain of salt", &mut [0; 32])
                .ok()
                .context("a hash")?;
            times.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        let each = median(times);
        rows.push([memory.to_string(), passes.to_string(), format!("{each:.1}")].to_vec());
    }
    lab.table("What a login waits for", &["KiB", "passes", "ms for each hash"], rows);
    Ok(())
}

/// Guesses a second, by so many threads that each try another guess each time. None of them is right.
fn guess(threads: usize, time: Duration, matches: &(impl Fn(&str) -> bool + Sync)) -> f64 {
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    let guesses: u64 = thread::scope(|scope| {
        let guessing: Vec<_> = (0..threads)
            .map(|thread| {
                let stop = &stop;
                scope.spawn(move || {
                    let mut n = 0_u64;
                    while !stop.load(Ordering::Relaxed) {
                        if matches(&format!("guess {n} of {thread}")) {
                            return 0;
                        }
                        n += 1;
                    }
                    n
                })
            })
            .collect();
        thread::sleep(time);
        stop.store(true, Ordering::Relaxed);
        guessing.into_iter().map(|thread| thread.join().unwrap_or(0)).sum()
    });
    guesses as f64 / begun.elapsed().as_secs_f64()
}
