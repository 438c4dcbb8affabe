//! How often does each algorithm decide otherwise than an exact log would?

use std::{collections::VecDeque, time::Duration};

use lab::{Experiment, Lab, Sabotage};
use rand::{Rng, SeedableRng, rngs::StdRng};

use crate::{
    algorithm::{Algorithm, Counter},
    bucket::{Gcra, TokenBucket},
    quota::{Micros, Quota},
    sliding_log::SlidingLog,
    window::{FixedWindow, SlidingWindow},
};

#[derive(clap::Args, Clone, Debug)]
struct Params {
    /// Requests, of all clients together
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(50_000..=20_000_000))]
    requests: u64,
    /// Requests that a client may send in 15 minutes; fewer than 50 cannot be shared out over the minutes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(50..=1_000))]
    limit: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "accuracy",
        "Against an exact log only the log is exact. Clients well below their limit notice nothing; for those at \
         it or above the sliding counter decides otherwise far more often than the 1 % that is said of it, but of \
         the cheap four it lets the fewest through falsely",
        &["--requests", "100000"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/window.rs",
        replace: "self.previous = self.current;",
        with: "self.previous = 0;",
        check: "but it lets fewer through falsely than the other cheap ones",
    })
}

/// How a client sends.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Habit {
    /// At random moments: on average this many limits in a window.
    Steady(f64),
    /// In bursts of this part of a limit: on average one in a window.
    Bursts(f64),
    /// On the stroke of every minute: this part of what the limit allows.
    Cron(f64),
}

/// What a service sees: most clients far below their limit, some near it, few far above.
///
/// The first [`BELOW`] never reach their limit.
const TRAFFIC: [(&str, Habit, u64); 7] = [
    ("a tenth of the limit, at random", Habit::Steady(0.1), 30),
    ("half of it, at random", Habit::Steady(0.5), 30),
    ("every minute, 0.8 of the limit", Habit::Cron(0.8), 10),
    ("bursts of 0.4 of the limit", Habit::Bursts(0.4), 15),
    ("just the limit, at random", Habit::Steady(1.0), 5),
    ("bursts of 1.5 limits", Habit::Bursts(1.5), 5),
    ("three times the limit, at random", Habit::Steady(3.0), 5),
];

const BELOW: usize = 3;

/// Clients of each habit. The requests of a habit are shared out among them.
const CLIENTS: u64 = 20;

/// How one algorithm differs from an exact log.
#[derive(Clone, Copy, Debug, Default)]
struct Differs {
    requests: u64,
    /// Let through, although it had let a whole limit through in the last window.
    falsely_passed: u64,
    /// Refused, although it had let fewer through.
    falsely_refused: u64,
    /// Decided otherwise than a log that ran beside it. The two soon remember different pasts.
    unlike_a_log_beside: u64,
}

impl Differs {
    fn add(&mut self, other: Self) {
        self.requests += other.requests;
        self.falsely_passed += other.falsely_passed;
        self.falsely_refused += other.falsely_refused;
        self.unlike_a_log_beside += other.unlike_a_log_beside;
    }

    fn percent(&self) -> f64 {
        (self.falsely_passed + self.falsely_refused) as f64 * 100.0 / self.requests as f64
    }
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    // The rarest kind of client has to send more than its limit, or nobody could decide falsely.
    let enough = 1_000 * u64::from(params.limit);
    anyhow::ensure!(params.requests >= enough, "for this limit, give --requests {enough} or more");
    let quota = Quota::new(params.limit, Duration::from_mins(15))?;
    let compared = {
        let lab = lab.clone();
        // Work for the processor, not for the threads that wait for sockets.
        tokio::task::spawn_blocking(move || compare(&params, &quota, &lab)).await?
    };
    let mut all = [Differs::default(); 5];
    let mut rows = Vec::new();
    for ((name, _, share), differs) in TRAFFIC.iter().zip(&compared) {
        let percents = differs.iter().map(|it| format!("{:.2} %", it.percent()));
        rows.push(
            [vec![format!("{name} ({share} % of the requests)")], percents.collect()].concat(),
        );
        for (all, differs) in all.iter_mut().zip(differs) {
            all.add(*differs);
        }
    }
    let columns = [&["traffic"][..], &Algorithm::ALL.map(Algorithm::name)].concat();
    lab.table("Decided otherwise than an exact log, by traffic", &columns, rows);
    let row = |(algorithm, it): (Algorithm, &Differs)| {
        let share = |count: u64| format!("{:.3} %", count as f64 * 100.0 / it.requests as f64);
        let wrong = [it.falsely_passed, it.falsely_refused, it.unlike_a_log_beside].map(share);
        [vec![algorithm.name().to_owned()], wrong.to_vec()].concat()
    };
    let rows = Algorithm::ALL.into_iter().zip(&all).map(row).collect();
    lab.table(
        "In all",
        &["algorithm", "falsely let through", "falsely refused", "unlike a log beside it"],
        rows,
    );
    for (algorithm, differs) in Algorithm::ALL.into_iter().zip(&all) {
        lab.figure(format!("{}: decided otherwise", algorithm.name()), differs.percent(), "%");
    }
    let [fixed, log, sliding, bucket, gcra] = all;
    let log = log.falsely_passed + log.falsely_refused;
    lab.check_eq("requests that our sliding log decided otherwise than the definition", 0, log);
    let (mut below, mut at_it) = (Differs::default(), Differs::default());
    for (kind, differs) in compared.iter().enumerate() {
        if kind < BELOW { below.add(differs[2]) } else { at_it.add(differs[2]) }
    }
    let percent = |it: Differs| format!("{:.3} %", it.percent());
    lab.check(
        "the sliding counter, for clients that stay below their limit, is off by less than 1 %",
        "below 1 %",
        percent(below),
        below.percent() < 1.0,
    );
    lab.check("and for the others by more", "above 1 %", percent(at_it), at_it.percent() > 1.0);
    let least = fixed.falsely_passed.min(bucket.falsely_passed).min(gcra.falsely_passed);
    lab.check(
        "but it lets fewer through falsely than the other cheap ones",
        format!("below {least}"),
        sliding.falsely_passed,
        sliding.falsely_passed < least,
    );
    Ok(())
}

/// For each kind of traffic, how each algorithm differs.
fn compare(params: &Params, quota: &Quota, lab: &Lab) -> Vec<[Differs; 5]> {
    // A new seed for each run, because a fixed one could hide a fault by luck.
    let mut random = StdRng::from_os_rng();
    let mut done = 0;
    let kinds = TRAFFIC.iter().map(|(name, habit, share)| {
        let mut differs = [Differs::default(); 5];
        for _ in 0..CLIENTS {
            let requests = params.requests * share / 100 / CLIENTS;
            let times = times(*habit, quota, requests, &mut random);
            differs[0].add(differ::<FixedWindow>(quota, &times));
            differs[1].add(differ::<SlidingLog>(quota, &times));
            differs[2].add(differ::<SlidingWindow>(quota, &times));
            differs[3].add(differ::<TokenBucket>(quota, &times));
            differs[4].add(differ::<Gcra>(quota, &times));
            done += requests;
            lab.progress(done, params.requests, format!("requests of clients that send {name}"));
        }
        differs
    });
    kinds.collect()
}

/// When one client sends its requests.
fn times(habit: Habit, quota: &Quota, requests: u64, random: &mut StdRng) -> Vec<Micros> {
    let (window, limit) = (quota.window() as f64, quota.limit() as f64);
    let mut now = 1e12 + random.random_range(0.0..window);
    let mut times = Vec::new();
    // An exponential pause: requests that do not depend on each other come at such times.
    let pause = |mean: f64, random: &mut StdRng| -mean * (1.0 - random.random::<f64>()).ln();
    while (times.len() as u64) < requests {
        let (burst, each) = match habit {
            Habit::Steady(rate) => {
                now += pause(window / (limit * rate), random);
                (1, 0.0)
            }
            Habit::Bursts(size) => {
                now += pause(window, random);
                (whole(limit * size), window / limit / 100.0)
            }
            Habit::Cron(rate) => {
                now = ((now / 60e6).floor() + 1.0) * 60e6;
                (whole(limit * rate * 60e6 / window), 1_000.0)
            }
        };
        for _ in 0..burst {
            now += pause(each, random);
            times.push(whole(now));
        }
    }
    times
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive, below 2⁵³")]
fn whole(number: f64) -> u64 {
    number as u64
}

/// The definition: at most `limit` in the last window. Written without our sliding log, which is compared too.
struct Exact<'a> {
    quota: &'a Quota,
    passed: VecDeque<Micros>,
}

impl<'a> Exact<'a> {
    fn new(quota: &'a Quota) -> Self {
        Self { quota, passed: VecDeque::new() }
    }

    fn would_pass(&mut self, now: Micros) -> bool {
        self.passed.retain(|&at| at + self.quota.window() > now);
        (self.passed.len() as u64) < self.quota.limit()
    }
}

fn differ<C: Counter>(quota: &Quota, times: &[Micros]) -> Differs {
    let (mut counter, mut differs) = (C::default(), Differs::default());
    let (mut own_past, mut beside) = (Exact::new(quota), Exact::new(quota));
    for &now in times {
        counter.advance(quota, now);
        let passes = counter.wait(quota, now, 1) == 0;
        let should = own_past.would_pass(now);
        if passes {
            counter.take(quota, now, 1);
            own_past.passed.push_back(now);
        }
        let would = beside.would_pass(now);
        if would {
            beside.passed.push_back(now);
        }
        differs.requests += 1;
        differs.falsely_passed += u64::from(passes && !should);
        differs.falsely_refused += u64::from(!passes && should);
        differs.unlike_a_log_beside += u64::from(passes != would);
    }
    differs
}
