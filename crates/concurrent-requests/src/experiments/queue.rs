//! Twice as many come as can be served. Who of them should be first?

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Fixture, Seen, at_rate, capacity, percentile, product, share};

const CONNECTIONS: u32 = 2;
/// Each way to the database and back.
const DELAY: Duration = Duration::from_millis(20);
/// As a part of the capacity.
const LOAD: f64 = 2.0;
/// Every second client hangs up after the first, the others after the second.
const PATIENCE: [Duration; 2] = [Duration::from_millis(150), Duration::from_millis(450)];

/// The name of a way, its order, and whether clients tell their deadlines.
const WAYS: [(&str, &str, bool); 4] = [
    ("FIFO, deadlines not told", "fifo", false),
    ("FIFO", "fifo", true),
    ("LIFO", "lifo", true),
    ("next deadline first", "deadline", true),
];

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds of overload
    #[arg(long, default_value_t = 5.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "queue",
        "In an overload, a long queue in the order of arrival answers next to nobody in time, unless the service knows the \
         deadlines and does not begin what will be late. LIFO answers about as many, and those have waited less",
        &["--seconds", "1.5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/admission.rs",
        replace: "let in_time = Instant::now() + 2 * state.usual;",
        with: "let in_time = Instant::now();",
        check: "next deadline first: answered in time ÷ those of FIFO",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    // All at the same time: each has a proxy of its own, whose delay sets the capacity, and they hardly use the processor.
    lab.progress(0, 1, "all four ways");
    let all = try_join_all(WAYS.map(|way| overloaded(&fixture, way, params))).await?;
    let percent = |seen: &[Seen]| format!("{:.0} %", share(seen) * 100.0);
    let rows = WAYS.iter().zip(&all).map(|((name, ..), seen)| {
        let half = |odd: bool| -> Vec<Seen> {
            seen.iter().copied().filter(|it| (it.number % 2 == 1) == odd).collect()
        };
        let shares = [percent(seen), percent(&half(false)), percent(&half(true))];
        let median = format!("{:.0}", percentile(seen, 50));
        [vec![(*name).to_owned()], shares.to_vec(), vec![median]].concat()
    });
    let columns = ["first is", "in time", "of the hurried", "of the patient", "their p50 (ms)"];
    lab.table("At twice the capacity", &columns, rows.collect());
    for ((name, ..), seen) in WAYS.iter().zip(&all) {
        lab.figure(format!("{name}: answered in time"), share(seen) * 100.0, "%");
        lab.figure(format!("{name}: median wait of those"), percentile(seen, 50), "ms");
    }
    for way in [1, 2] {
        let ratio = share(&all[way]) / share(&all[0]).max(0.01);
        let name = WAYS[way].0;
        let check = format!("{name}: answered in time ÷ the same with deadlines that are not told");
        lab.check(check, "1.25 or more", format!("{ratio:.2}"), ratio >= 1.25);
    }
    for way in [2, 3] {
        let ratio = share(&all[way]) / share(&all[1]);
        let check = format!("{}: answered in time ÷ those of FIFO", WAYS[way].0);
        lab.check(check, "0.7 or more", format!("{ratio:.2}"), ratio >= 0.7);
    }
    let check = "LIFO: median wait of those who are answered ÷ that of FIFO";
    let ratio = percentile(&all[2], 50) / percentile(&all[1], 50);
    lab.check(check, "0.8 or less", format!("{ratio:.2}"), ratio <= 0.8);
    Ok(())
}

/// What clients see of a shop whose queue has room for everybody, and which does not see that a client hangs up.
async fn overloaded(
    fixture: &Fixture,
    (_, order, told): (&str, &str, bool),
    params: Params,
) -> anyhow::Result<Vec<Seen>> {
    let words = ["--in-flight", "2", "--waiting", "100000", "--finish-abandoned"];
    let words = [&words[..], &["--order", order, "--timeout-ms", "30000"]].concat();
    let far = fixture.far(CONNECTIONS, DELAY, &words).await?;
    let rate = LOAD * capacity(CONNECTIONS, DELAY);
    at_rate(rate, Duration::from_secs_f64(params.seconds), |number| {
        let clients = Arc::clone(&far.clients);
        let patience = PATIENCE[usize::from(number % 2 == 1)];
        async move {
            let answer = clients.get_in_time(&product(number), patience, told).await?;
            Ok(answer == Some(200))
        }
    })
    .await
}
