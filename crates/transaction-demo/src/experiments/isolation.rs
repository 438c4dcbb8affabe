//! What does each isolation level permit? The anomalies of Adya's thesis, as the Hermitage tests have them, played
//! live.

use lab::{Experiment, Lab, Sabotage};
use sqlx::{Connection, Executor, PgConnection};

use super::{
    anomalies::{ANOMALIES, Anomaly, Which},
    sessions::Stage,
    steps::{Trace, columns},
};
use crate::database::Isolation;

#[derive(clap::Args, Clone, Copy, Debug)]
struct Params {
    /// Which anomaly to play
    #[arg(long, value_enum, default_value_t = Which::All)]
    anomaly: Which,
    /// Times that each is played: the same must come of it each time
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
}

/// The experiment.
pub fn experiment() -> Experiment {
    Experiment::new(
        "isolation",
        "Read committed permits PMP, P4, G-single, G2-item and G2, and prevents G0, G1a, G1b, G1c and OTV; \
         repeatable read permits only G2-item and G2; serializable permits none",
        &["--rounds", "1"],
        run,
    )
    .sabotage(Sabotage {
        file: "src/database.rs",
        replace: r#""begin isolation level serializable""#,
        with: r#""begin isolation level repeatable read""#,
        check: "G2-item, write skew: each changes what the other relied on: at read committed, repeatable read, serializable",
    })
}

const LEVELS: [(&str, Isolation); 3] = [
    ("read committed", Isolation::ReadCommitted),
    ("repeatable read", Isolation::RepeatableRead),
    ("serializable", Isolation::Serializable),
];

async fn run(params: Params, lab: Lab) -> anyhow::Result<()> {
    let database = lab.database().await?;
    let mut admin = PgConnection::connect(database.url()).await?;
    admin.execute("create table test (id int primary key, value int not null)").await?;
    let mut stage = Stage::open(database.url()).await?;
    let wanted =
        |anomaly: &&Anomaly| params.anomaly == Which::All || params.anomaly == anomaly.which;
    let chosen: Vec<_> = ANOMALIES.iter().filter(wanted).collect();
    let (mut overview, mut waits, mut failures, mut mishaps) = (Vec::new(), 0, 0, 0);
    for (done, anomaly) in chosen.iter().enumerate() {
        lab.progress(done as u64, chosen.len() as u64, format!("{} at each level", anomaly.name));
        let (mut seen, mut outcomes) = (Vec::new(), Vec::new());
        for (_, level) in LEVELS {
            let (mut happened, mut words) = (0, Vec::new());
            for _ in 0..params.rounds {
                let (trace, end) = once(&mut stage, &mut admin, anomaly, level).await?;
                happened += u32::from((anomaly.happened)(&trace, &end));
                waits += trace.waits();
                failures += trace.failures().len();
                let mishap = |code: &&&str| !["40001", "40P01"].contains(*code);
                mishaps += trace.failures().iter().filter(mishap).count();
                words = trace.words();
            }
            seen.push(verdict(happened, params.rounds));
            outcomes.push(words);
        }
        show(&lab, anomaly, &outcomes);
        let expected: Vec<_> =
            anomaly.permitted.map(|permitted| verdict(u32::from(permitted), 1)).into();
        let check = format!(
            "{}, {}: at read committed, repeatable read, serializable",
            anomaly.name, anomaly.title
        );
        lab.check_eq(check, expected.join(", "), seen.join(", "));
        overview.push([vec![anomaly.name.to_owned()], seen].concat());
    }
    let columns = ["anomaly", LEVELS[0].0, LEVELS[1].0, LEVELS[2].0];
    lab.table("What each level permits", &columns, overview);
    lab.figure("statements that had to wait", waits as f64, "");
    lab.figure("transactions that were refused", failures as f64, "");
    // A statement that fails for any other reason shows nothing, and would look like an anomaly prevented.
    lab.check_eq("statements that failed with anything but 40001 or 40P01", 0, mishaps);
    Ok(())
}

/// Plays it once, on two fresh rows; returns what was seen, and the values at the end.
async fn once(
    stage: &mut Stage,
    admin: &mut PgConnection,
    anomaly: &Anomaly,
    level: Isolation,
) -> anyhow::Result<(Trace, Vec<i64>)> {
    admin.execute("truncate test").await?;
    admin.execute("insert into test values (1, 10), (2, 20)").await?;
    let trace = stage.play(level.begin(), anomaly.steps).await?;
    let end = sqlx::query_scalar("select value::bigint from test order by id");
    Ok((trace, end.fetch_all(admin).await?))
}

fn verdict(happened: u32, rounds: u32) -> String {
    match happened {
        0 => "prevented".to_owned(),
        _ if happened == rounds => "permitted".to_owned(),
        _ => format!("permitted {happened} of {rounds} times"),
    }
}

/// The statements in a column for each transaction, and beside them what came of them at each level.
fn show(lab: &Lab, anomaly: &Anomaly, outcomes: &[Vec<String>]) {
    let mut rows = columns(anomaly.steps, anomaly.sessions);
    for words in outcomes {
        for (row, word) in rows.iter_mut().zip(words) {
            row.push(word.clone());
        }
    }
    let mut head = vec!["T1", "T2", "T3"];
    head.truncate(anomaly.sessions);
    head.extend(LEVELS.map(|(name, _)| name));
    lab.table(format!("{}, {}", anomaly.name, anomaly.title), &head, rows);
}
