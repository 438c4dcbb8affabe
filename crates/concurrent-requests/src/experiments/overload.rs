//! Three times as many come as can be served. How many get an answer in time, and how is it afterwards?

use std::{sync::Arc, time::Duration};

use lab::{Experiment, Lab, Sabotage, Target};

use super::fixture::{Clients, Fixture, at_rate, capacity, percentile, product, recovered, share};

/// As parts of the capacity.
const LOADS: [f64; 5] = [0.2, 0.5, 1.0, 2.0, 3.0];
/// After the overload. Before it, this load is no difficulty; with a retry from each client it is more than the capacity.
const AFTER: f64 = 0.6;
/// Few, so that the computer itself is far from its limits: only the service is overloaded.
const CONNECTIONS: u32 = 2;
/// Each way to the database and back.
const DELAY: Duration = Duration::from_millis(20);

/// Everybody is let in, and goes on although the client has gone: behind a proxy that says nothing of it, or in a framework
/// that does not look.
const WITHOUT: [&str; 7] =
    ["--in-flight", "1000000", "--waiting", "0", "--finish-abandoned", "--timeout-ms", "30000"];
/// The same, but what was abandoned is dropped.
const DROPPED: [&str; 6] = ["--in-flight", "1000000", "--waiting", "0", "--timeout-ms", "30000"];
/// As many at work as there are connections, and a queue that is worked off in a tenth of a second.
const WITH: [&str; 4] = ["--in-flight", "2", "--waiting", "4"];

/// To drop what is abandoned is not enough: most is done for clients who hang up just before it is ready.
const DROPPED_CHECK: &str =
    "without limits, abandoned requests dropped: the same ÷ that with limits";

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds at each load: several times the patience, since whoever comes first is answered in time without limits too
    #[arg(long, default_value_t = 1.2, value_parser = lab::experiment::seconds)]
    seconds: f64,
    /// Seconds after the overload
    #[arg(long, default_value_t = 3.0, value_parser = lab::experiment::seconds)]
    after: f64,
    /// Milliseconds after which a client hangs up, and tries once more
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(100..=5_000))]
    patience: u64,
    /// How many of the five loads are tried, from the largest down
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=5))]
    loads: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "overload",
        "At three times the capacity, a service that takes everybody in and finishes what was abandoned answers next to \
         nobody in time, and stays so at a load that it could serve, since clients retry. With limits and a short queue it \
         goes on answering as many as it can",
        &["--seconds", "2", "--after", "2", "--loads", "2"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/admission.rs",
        replace: "if state.in_flight < state.limit.now() {",
        with: "if state.in_flight < usize::MAX {",
        check: DROPPED_CHECK,
    })
}

/// What clients saw of one service.
struct Whole {
    name: &'static str,
    /// Answers in time per second at each load, as parts of the capacity.
    goodput: Vec<f64>,
    /// At three times the capacity, of those that were answered, in milliseconds.
    p99: f64,
    /// The share that was answered in time in the last third after the overload.
    after: f64,
    /// Seconds until 18 of 20 were answered in time again, if they were.
    recovered: Option<f64>,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let mut rows = Vec::new();
    let without = load(&lab, &fixture, params, ("without limits", &WITHOUT), &mut rows).await?;
    let with = load(&lab, &fixture, params, ("with limits", &WITH), &mut rows).await?;
    let only_the_last = Params { loads: 1, ..params };
    let name = "without limits, abandoned requests dropped";
    let dropped = load(&lab, &fixture, only_the_last, (name, &DROPPED), &mut rows).await?;
    let columns = ["service", "load ÷ capacity", "in time ÷ capacity", "p99 of those (ms)"];
    lab.table("Answers in time", &columns, rows);
    let last = params.loads as usize - 1;
    let peak = |whole: &Whole| whole.goodput.iter().copied().fold(0.0, f64::max);
    let kept = with.goodput[last];
    let check = "with limits: answers in time at three times the capacity ÷ the most at any load";
    let of_peak = kept / peak(&with);
    lab.check(check, "0.5 or more", format!("{of_peak:.2}"), of_peak >= 0.5);
    let check = "without limits: the same ÷ that with limits";
    let ratio = without.goodput[last] / kept;
    lab.check(check, "0.5 or less", format!("{ratio:.2}"), ratio <= 0.5);
    let of_limits = dropped.goodput[0] / kept;
    lab.check(DROPPED_CHECK, "0.75 or less", format!("{of_limits:.2}"), of_limits <= 0.75);
    let check = "with limits: 18 of 20 are answered again after the overload";
    lab.check_eq(check, true, with.recovered.is_some());
    let check = "at the end, answered in time: without limits ÷ with limits";
    let ratio = without.after / with.after;
    lab.check(check, "0.5 or less", format!("{ratio:.2}"), ratio <= 0.5);
    for whole in [&with, &without] {
        let name = whole.name;
        let figure = format!("{name}: answers in time at three times the capacity ÷ the peak");
        let of_peak = whole.goodput[last] / peak(whole);
        if name == with.name {
            lab.figure_with_target(figure, of_peak, "", Target::AtLeast(0.9));
        } else {
            lab.figure(figure, of_peak, "");
        }
    }
    for whole in [&with, &without, &dropped] {
        let figure = format!("{}: at the end, requests that are answered in time", whole.name);
        lab.figure(figure, whole.after * 100.0, "%");
    }
    let figure = format!("{name}: answers in time at three times the capacity ÷ with limits");
    lab.figure(figure, of_limits, "");
    lab.figure("with limits: p99 of the answers at three times the capacity", with.p99, "ms");
    if let Some(seconds) = with.recovered {
        let name = "with limits: seconds until 18 of 20 are answered again";
        lab.figure_with_target(name, seconds, "s", Target::AtMost(2.0));
    }
    let end = params.after;
    for Whole { name, recovered, .. } in [&without, &dropped] {
        lab.text(match recovered {
            Some(seconds) => format!("{name}: it recovered after {seconds:.1} s."),
            None => format!("{name}: it had not recovered after {end:.1} s."),
        });
    }
    Ok(())
}

async fn load(
    lab: &Lab,
    fixture: &Fixture,
    params: Params,
    (name, words): (&'static str, &[&str]),
    rows: &mut Vec<Vec<String>>,
) -> anyhow::Result<Whole> {
    let far = fixture.far(CONNECTIONS, DELAY, words).await?;
    let capacity = capacity(CONNECTIONS, DELAY);
    let patience = Duration::from_millis(params.patience);
    let mut whole = Whole { name, goodput: Vec::new(), p99: f64::NAN, after: 0.0, recovered: None };
    let loads = &LOADS[LOADS.len() - params.loads as usize..];
    let steps = loads.iter().map(|load| (*load, params.seconds)).chain([(AFTER, params.after)]);
    for (n, (load, seconds)) in steps.enumerate() {
        lab.progress(n as u64, loads.len() as u64 + 1, name);
        let time = Duration::from_secs_f64(seconds);
        let seen = at_rate(load * capacity, time, |number| {
            let clients = Arc::clone(&far.clients);
            async move { persistent(&clients, &product(number), patience).await }
        });
        let seen = seen.await?;
        let goodput = share(&seen) * load;
        let is_after = n == loads.len();
        let label = if is_after { format!("{load} (after)") } else { load.to_string() };
        let p99 = percentile(&seen, 99);
        // Nobody was answered: there is nothing to take a percentile of.
        let shown = if p99.is_nan() { "-".to_owned() } else { format!("{p99:.0}") };
        let cells = [label, format!("{goodput:.2}"), shown];
        rows.push([vec![name.to_owned()], cells.to_vec()].concat());
        if is_after {
            whole.after = share(&seen[seen.len() * 2 / 3..]);
            whole.recovered = recovered(&seen).map(|number| number / (load * capacity));
            continue;
        }
        let axes = ("load ÷ capacity", "in time ÷ capacity");
        lab.point("Answers in time by load", axes, name, (load, goodput));
        if !p99.is_nan() {
            let axes = ("load ÷ capacity", "ms");
            lab.point("p99 of the answers in time by load", axes, name, (load, p99));
        }
        whole.p99 = p99;
        whole.goodput.push(goodput);
    }
    Ok(whole)
}

/// A client that tries once more when its patience is over, or when it is told to come back later: at once.
async fn persistent(clients: &Clients, path: &str, patience: Duration) -> anyhow::Result<bool> {
    for _ in 0..2 {
        if clients.get_in_time(path, patience, true).await? == Some(200) {
            return Ok(true);
        }
    }
    Ok(false)
}
