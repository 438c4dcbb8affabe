//! The database is away for some seconds. What do the clients' retries do to the time after it?

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage, fault::Fault};
use rand::random_range;
use tokio::time::sleep;

use super::fixture::{Clients, Fixture, Seen, at_rate, capacity, product, recovered, share};

const CONNECTIONS: u32 = 4;
/// Each way to the database and back.
const DELAY: Duration = Duration::from_millis(20);
/// As a part of the capacity. Three times as much is more than it.
const LOAD: f64 = 0.4;
/// How often a client asks, at most.
const ATTEMPTS: u32 = 3;
/// A client hangs up after this, and may try again.
const PATIENCE: Duration = Duration::from_millis(400);
/// Points a second in the chart.
const POINTS: f64 = 2.0;

const WITHOUT: [&str; 7] =
    ["--in-flight", "1000000", "--waiting", "0", "--finish-abandoned", "--timeout-ms", "60000"];
const WITH: [&str; 7] =
    ["--in-flight", "4", "--waiting", "8", "--finish-abandoned", "--timeout-ms", "60000"];

/// A name, the shop, and whether its clients have a budget for retries.
const WAYS: [(&str, &[&str], bool); 3] = [
    ("at once", &WITHOUT, false),
    ("at once, shop with limits", &WITH, false),
    ("with a budget", &WITHOUT, true),
];

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds for which the database does not answer
    #[arg(long, default_value_t = 3.0, value_parser = lab::experiment::seconds)]
    outage: f64,
    /// Seconds after it
    #[arg(long, default_value_t = 6.0, value_parser = lab::experiment::seconds)]
    after: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "retries",
        "Clients that retry at once send nearly three times as much, and keep a service without limits down after its database \
         is back. With a budget for retries, backoff and jitter they send little more, and it recovers; with limits it \
         recovers in spite of them",
        &["--outage", "1", "--after", "2.4"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/admission.rs",
        replace: "if state.in_flight < state.limit.now() {",
        with: "if state.in_flight < usize::MAX {",
        check: "at the end, answered in time: at once, shop with limits ÷ with a budget",
    })
}

/// What a way of retrying led to.
struct Way {
    /// What was sent for each request that somebody wanted, from the outage on.
    sent: f64,
    /// The share that was answered in time in the last third.
    end: f64,
    /// Seconds from the end of the outage until 18 of 20 were answered in time.
    recovered: Option<f64>,
    /// In the order in which they were due.
    seen: Vec<Seen>,
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let fixture = Fixture::of(&lab, 1).await?;
    // All at the same time: each has a proxy of its own, whose delay sets the capacity.
    lab.progress(0, 1, "the outage, and after it");
    let [naive, limited, budget] = try_join_all(WAYS.map(|way| clients(&fixture, way, params)))
        .await?
        .try_into()
        .map_err(|_| anyhow::anyhow!("three ways"))?;
    let all = [&naive, &limited, &budget];
    let mut rows = Vec::new();
    for ((name, ..), way) in WAYS.iter().zip(all) {
        let rate = LOAD * capacity(CONNECTIONS, DELAY);
        let axes = ("seconds", "in time");
        for (n, some) in way.seen.chunks(bucket(rate)).enumerate() {
            lab.point(
                "Answers in time, from the outage on",
                axes,
                name,
                (n as f64 / POINTS, share(some)),
            );
        }
        let recovered =
            way.recovered.map_or_else(|| "not yet".to_owned(), |seconds| format!("{seconds:.1}"));
        let end = format!("{:.0} %", way.end * 100.0);
        rows.push(vec![(*name).to_owned(), format!("{:.2}", way.sent), end, recovered.clone()]);
        lab.figure(format!("{name}: requests sent ÷ requests wanted"), way.sent, "");
        if let Some(seconds) = way.recovered {
            lab.figure(format!("{name}: until 18 of 20 are answered in time"), seconds, "s");
        }
    }
    let columns = ["clients retry", "sent ÷ wanted", "in time at the end", "recovered after (s)"];
    lab.table("The database is away, and comes back", &columns, rows);
    let ratio = naive.sent / budget.sent;
    let check = "requests sent: at once ÷ with a budget";
    lab.check(check, "1.5 or more", format!("{ratio:.2}"), ratio >= 1.5);
    let ratio = naive.end / budget.end;
    let check = "at the end, answered in time: at once ÷ with a budget";
    lab.check(check, "0.5 or less", format!("{ratio:.2}"), ratio <= 0.5);
    let ratio = limited.end / budget.end;
    let check = "at the end, answered in time: at once, shop with limits ÷ with a budget";
    lab.check(check, "0.5 or more", format!("{ratio:.2}"), ratio >= 0.5);
    Ok(())
}

/// Requests for each point of the chart.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it is small")]
fn bucket(rate: f64) -> usize {
    (rate / POINTS).round() as usize
}

/// The load from the beginning of the outage on.
async fn clients(
    fixture: &Fixture,
    (_, words, has_budget): (&str, &[&str], bool),
    params: Params,
) -> anyhow::Result<Way> {
    let far = fixture.far(CONNECTIONS, DELAY, words).await?;
    let rate = LOAD * capacity(CONNECTIONS, DELAY);
    let budget = has_budget.then(Budget::default).map(Arc::new);
    let sent = Arc::new(Mutex::new(0_u64));
    let load = at_rate(rate, Duration::from_secs_f64(params.outage + params.after), |number| {
        let (clients, budget) = (Arc::clone(&far.clients), budget.clone());
        let sent = Arc::clone(&sent);
        async move { persistent(&clients, &product(number), budget.as_deref(), &sent).await }
    });
    far.proxy.set(Fault::BlackHole);
    let outage = async {
        sleep(Duration::from_secs_f64(params.outage)).await;
        far.proxy.set(Fault::Delay(DELAY));
        anyhow::Ok(())
    };
    let (seen, ()) = tokio::try_join!(load, outage)?;
    let begins = seen.iter().position(|it| it.number as f64 >= rate * params.outage);
    let after = &seen[begins.unwrap_or(seen.len())..];
    let sent = *sent.lock().unwrap_or_else(PoisonError::into_inner) as f64 / seen.len() as f64;
    let end = share(&after[after.len() * 2 / 3..]);
    Ok(Way { sent, end, recovered: recovered(after).map(|number| number / rate), seen })
}

/// A client that asks again if it has not heard a yes: at once, or if the budget allows it, after a while.
async fn persistent(
    clients: &Clients,
    path: &str,
    budget: Option<&Budget>,
    sent: &Mutex<u64>,
) -> anyhow::Result<bool> {
    if let Some(budget) = budget {
        budget.earn();
    }
    for attempt in 0..ATTEMPTS {
        *sent.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        if clients.get_in_time(path, PATIENCE, true).await? == Some(200) {
            return Ok(true);
        }
        if let Some(budget) = budget {
            if attempt + 1 == ATTEMPTS || !budget.allows() {
                return Ok(false);
            }
            // Full jitter: anywhere up to twice as long each time.
            sleep(Duration::from_millis(random_range(0..100 << attempt))).await;
        }
    }
    Ok(false)
}

/// One retry for ten requests, over all requests of a client process; in tenths of a retry.
#[derive(Debug, Default)]
struct Budget(Mutex<u32>);

impl Budget {
    /// Each request adds a tenth, whether or not it goes well. At most ten retries are saved.
    fn earn(&self) {
        let mut tenths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *tenths = (*tenths + 1).min(100);
    }

    /// Whether a request may be sent again.
    fn allows(&self) -> bool {
        let mut tenths = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let allowed = *tenths >= 10;
        *tenths -= if allowed { 10 } else { 0 };
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_requests_pay_for_one_retry_also_when_none_has_failed() {
        let budget = Budget::default();
        (0..9).for_each(|_| budget.earn());
        assert!(!budget.allows());
        budget.earn();
        assert!(budget.allows() && !budget.allows());
        (0..1_000).for_each(|_| budget.earn());
        assert_eq!((0..20).filter(|_| budget.allows()).count(), 10);
    }
}
