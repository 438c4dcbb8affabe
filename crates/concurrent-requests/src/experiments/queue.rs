//! Twice as many come as can be served. Who of them should be first?

use std::{sync::Arc, time::Duration};

use lab::{Experiment, Lab, Sabotage};

use super::fixture::{Fixture, Seen, at_rate, capacity, percentile, product, share};

const CONNECTIONS: u32 = 4;
/// Each way to the database and back.
const DELAY: Duration = Duration::from_millis(10);
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
    /// Seconds for each way
    #[arg(long, default_value_t = 2.5, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "queue",
        "In an overload, a long queue in the order of arrival answers next to nobody in time, unless the service knows the \
         deadlines and does not begin what will be late. With LIFO those who are answered have hardly waited",
        &["--seconds", "1.5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/admission.rs",
        replace: "let in_time = Instant::now() + 2 * state.usual;",
        with: "let in_time = Instant::now();",
        check: "FIFO: answered in time ÷ the same with deadlines that are not told",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    let (mut rows, mut shares, mut medians) = (Vec::new(), Vec::new(), Vec::new());
    for (n, (name, order, told)) in WAYS.into_iter().enumerate() {
        lab.progress(n as u64, WAYS.len() as u64, name);
        // The queue has room for everybody, and the service does not see that a client hangs up.
        let words = ["--in-flight", "4", "--waiting", "100000", "--finish-abandoned"];
        let words = [&words[..], &["--order", order, "--timeout-ms", "30000"]].concat();
        let far = fixture.far(CONNECTIONS, DELAY, &words).await?;
        let rate = LOAD * capacity(CONNECTIONS, DELAY);
        let seen = at_rate(rate, Duration::from_secs_f64(params.seconds), |number| {
            let clients = Arc::clone(&far.clients);
            let patience = PATIENCE[usize::from(number % 2 == 1)];
            async move {
                let answer = clients.get_in_time(&product(number), patience, told).await?;
                Ok(answer == Some(200))
            }
        });
        let seen = seen.await?;
        let half = |odd: bool| -> Vec<Seen> {
            seen.iter().copied().filter(|it| (it.number % 2 == 1) == odd).collect()
        };
        let percent = |seen: &[Seen]| format!("{:.0} %", share(seen) * 100.0);
        rows.push(vec![
            name.to_owned(),
            percent(&seen),
            percent(&half(false)),
            percent(&half(true)),
            format!("{:.0}", percentile(&seen, 50)),
        ]);
        lab.figure(format!("{name}: answered in time"), share(&seen) * 100.0, "%");
        lab.figure(format!("{name}: median wait of those"), percentile(&seen, 50), "ms");
        shares.push(share(&seen));
        medians.push(percentile(&seen, 50));
    }
    let columns = ["first is", "in time", "of the hurried", "of the patient", "their p50 (ms)"];
    lab.table("At twice the capacity", &columns, rows);
    for (way, least) in [(1, 1.25), (2, 1.25)] {
        let ratio = shares[way] / shares[0].max(0.01);
        let name = WAYS[way].0;
        let check = format!("{name}: answered in time ÷ the same with deadlines that are not told");
        lab.check(check, format!("{least} or more"), format!("{ratio:.2}"), ratio >= least);
    }
    let check = "LIFO: median wait of those who are answered ÷ that of FIFO";
    let ratio = medians[2] / medians[1];
    lab.check(check, "0.8 or less", format!("{ratio:.2}"), ratio <= 0.8);
    Ok(())
}
