//! The database loses two thirds of what it can do. Which limit of requests at work is right before and after?

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::try_join_all;
use lab::{Experiment, Lab, Sabotage};
use tokio::time::{interval, sleep};

use super::fixture::{Clients, Fixture, Seen, at_rate, percentile, product, share};

/// At how many statements the database works at once, before and after.
const PLACES: [u32; 2] = [6, 2];
/// For how long at each, in seconds.
const TAKES: f64 = 0.1;
/// Requests a second: more than the database can do, before and after.
const RATE: f64 = 90.0;
/// More than any of the limits.
const CONNECTIONS: &str = "24";
/// Points a second in the chart.
const POINTS: u32 = 5;

/// With nine at work, each request takes longer than this after the change. With a third of them, none does.
const PATIENCE: Duration = Duration::from_millis(400);

/// A name, what the shop is started with, and when its clients hang up.
type Way = (&'static str, &'static [&'static str], Option<Duration>);

const WAYS: [Way; 4] = [
    ("fixed at 3", &["--in-flight", "3"], None),
    ("fixed at 9", &["--in-flight", "9"], None),
    ("adaptive", &["--in-flight", CONNECTIONS, "--adaptive"], None),
    ("adaptive, clients that hang up", &["--in-flight", CONNECTIONS, "--adaptive"], Some(PATIENCE)),
];

/// A database that works at so many statements at once. The others wait inside it, one behind another, as they do for
/// processors and disks.
const DEPENDENCY: &str = r#"
    create table dependency (places int not null, seconds float8 not null);
    insert into dependency (places, seconds) values (0, 0);
    create sequence turn;
    create function serve() returns boolean
    language plpgsql
    as $$
    declare
        places int;
        seconds float8;
    begin
        select d.places, d.seconds into places, seconds from dependency as d;
        perform pg_advisory_xact_lock(nextval('turn') % places);
        perform pg_sleep(seconds);
        return true;
    end
    $$;
    alter table products rename to shelf;
    create view products as
    select id, name, cents, stock
    from shelf
    where (select serve());
"#;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Seconds before the database becomes slower, and the same time after
    #[arg(long, default_value_t = 5.0, value_parser = lab::experiment::seconds)]
    seconds: f64,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "adaptive",
        "A database becomes three times slower, since it works at a third as many statements at once. A fixed limit is too low \
         before, or makes everybody wait after. A limit that follows the latency is near what is right both times, also when \
         clients hang up before they are answered",
        &["--seconds", "5"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/limit.rs",
        replace: "gradient.clamp(0.5, 1.0)",
        with: "gradient.clamp(1.0, 1.0)",
        check: "after: median wait, fixed at 9 ÷ adaptive",
    })
}

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    lab.progress(0, 1, "a database that becomes slower");
    // All at the same time, each with a database of its own, which mostly sleeps.
    let all = try_join_all(WAYS.map(|way| shop(&lab, way, params))).await?;
    let mut rows = Vec::new();
    for ((name, ..), phases) in WAYS.iter().zip(&all) {
        let cells = |seen: &[Seen]| {
            [format!("{:.0}", share(seen) * RATE), format!("{:.0}", percentile(seen, 50))]
        };
        let cells = [cells(&phases[0]), cells(&phases[1])].concat();
        rows.push([vec![(*name).to_owned()], cells].concat());
    }
    let columns = ["limit", "answers/s", "p50 (ms)", "answers/s after", "p50 (ms) after"];
    lab.table("The second half of the time before and after", &columns, rows);
    let [low, high, adaptive, impatient] = &all[..] else { anyhow::bail!("four ways") };
    let ratio = |what: String, value: f64, least: Option<f64>, most: Option<f64>| {
        let expected = match (least, most) {
            (Some(least), _) => format!("{least} or more"),
            (_, most) => format!("{} or less", most.unwrap_or_default()),
        };
        let held = least.is_none_or(|it| value >= it) && most.is_none_or(|it| value <= it);
        lab.check(what, expected, format!("{value:.2}"), held);
    };
    let answered = share(&low[0]) / share(&adaptive[0]);
    ratio("before: answers, fixed at 3 ÷ adaptive".to_owned(), answered, None, Some(0.8));
    let waited = percentile(&high[1], 50) / percentile(&adaptive[1], 50);
    ratio("after: median wait, fixed at 9 ÷ adaptive".to_owned(), waited, Some(1.25), None);
    for (n, when) in ["before", "after"].into_iter().enumerate() {
        let most = share(&low[n]).max(share(&high[n]));
        let kept = share(&adaptive[n]) / most;
        ratio(
            format!("{when}: answers, adaptive ÷ the better of the fixed"),
            kept,
            Some(0.6),
            None,
        );
        lab.figure(format!("{when}: answers, adaptive ÷ the better of the fixed"), kept, "");
    }
    // If requests that outlast their clients taught nothing, the limit would stay where they do.
    let check = "after: answers, clients that hang up ÷ those that wait";
    let kept = share(&impatient[1]) / share(&adaptive[1]);
    ratio(check.to_owned(), kept, Some(0.5), None);
    lab.figure(check, kept, "");
    lab.figure("before: answers, fixed at 3 ÷ adaptive", answered, "");
    lab.figure("after: median wait, fixed at 9 ÷ adaptive", waited, "");
    Ok(())
}

/// What clients saw in the second half of the time before and after.
async fn shop(
    lab: &Lab,
    (name, words, patience): Way,
    params: Params,
) -> anyhow::Result<[Vec<Seen>; 2]> {
    let fixture = Fixture::of(lab, 1).await?;
    sqlx::raw_sql(DEPENDENCY).execute(&fixture.pool).await?;
    let works_at = async |places: u32| {
        let update = "update dependency set places = $1, seconds = $2";
        let update = sqlx::query(update).bind(places.cast_signed()).bind(TAKES);
        update.execute(&fixture.pool).await
    };
    works_at(PLACES[0]).await?;
    let words = [&["--connections", CONNECTIONS, "--waiting", "0"], words].concat();
    let shop = fixture.serve().args(&words).start().await?;
    let clients = Arc::new(Clients::of(shop.address()));
    let time = Duration::from_secs_f64(2.0 * params.seconds);
    let load = at_rate(RATE, time, |number| {
        let clients = Arc::clone(&clients);
        async move {
            let path = product(number);
            let status = match patience {
                Some(patience) => clients.get_in_time(&path, patience, false).await?,
                None => Some(clients.get(&path).await?),
            };
            Ok(status == Some(200))
        }
    });
    let change = async {
        sleep(time / 2).await;
        works_at(PLACES[1]).await?;
        anyhow::Ok(())
    };
    let limits = async {
        let begun = Instant::now();
        let mut ticks = interval(Duration::from_secs(1) / POINTS);
        while begun.elapsed() < time {
            ticks.tick().await;
            let pressure: serde_json::Value =
                reqwest::get(format!("{}/pressure", shop.url())).await?.json().await?;
            let limit = pressure["limits"]["in_flight"].as_f64().unwrap_or(f64::NAN);
            let axes = ("seconds", "may be at work");
            lab.point("The limit", axes, name, (begun.elapsed().as_secs_f64(), limit));
        }
        anyhow::Ok(())
    };
    let (seen, (), ()) = tokio::try_join!(load, change, limits)?;
    let quarter = seen.len() / 4;
    Ok([seen[quarter..2 * quarter].to_vec(), seen[3 * quarter..].to_vec()])
}
